"""The Dockerfile and the Kubernetes example: users, probes, ports, and commands that `cascade serve` understands.

There is no docker here: both are parsed, neither is run.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
from typing import Any

import click
import pytest

from tests.test_floors import ROOT

FOLDER = ROOT / "docker"
yaml: Any = importlib.import_module("yaml")  # huggingface_hub needs it; it has no types


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, in order; lines that go on are joined."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def stage(number: int) -> list[tuple[str, str]]:
    """The instructions of a stage, counted from 1, without its FROM."""
    found: list[list[tuple[str, str]]] = [[]]
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        else:
            found[-1].append((name, rest))
    return found[number]


def of(name: str) -> list[str]:
    """All instructions of a name in the last stage."""
    return [rest for known, rest in stage(-1) if known == name]


def manifests() -> dict[str, Any]:
    every = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {one["kind"]: one for one in every}


def container() -> dict[str, Any]:
    (found,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def read(arguments: list[str]) -> dict[str, Any]:
    """What `cascade serve` makes of arguments."""
    command: click.Command = pytest.importorskip("cascade.cli.serve").serve
    return command.make_context("serve", arguments, resilient_parsing=False).params


def test_the_build_stage_installs_the_extra_from_files_that_exist() -> None:
    build = stage(1)
    copied = [path for name, rest in build if name == "COPY" for path in rest.split()[:-1]]
    assert [path for path in copied if not (ROOT / path).exists()] == []
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    mapped = project.partition("[tool.setuptools.package-dir]")[2].partition("[tool")[0]
    for folder in re.findall(r'^"?[\w.]+"? = "([\w/]+)"$', mapped, flags=re.MULTILINE):
        assert folder in copied, "the wheel needs it"
    assert any('pip --python /opt/cascade/bin/python install --no-cache-dir ".[serve]"' in rest for _, rest in build)
    kept = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in kept
    assert [path for path in copied if f"!{path.split('/')[0]}" not in kept] == []


def test_the_image_is_small_and_its_user_nobody() -> None:
    bases = [rest for name, rest in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert "slim" in bases[-1]
    assert of("RUN") == [], "the last stage has files alone"
    ((user),) = of("USER")
    assert all(part.isdigit() and int(part) > 0 for part in user.split(":"))
    order = [name for name, _ in stage(-1)]
    assert order.index("USER") < order.index("HEALTHCHECK") < order.index("ENTRYPOINT") < order.index("CMD")


def test_models_come_by_an_argument_or_a_mount() -> None:
    (default,) = [rest.removeprefix("MODEL=") for rest in of("ARG")]
    assert (ROOT / default / "cascade.json").is_file()
    assert "${MODEL} /models/default" in of("COPY")


def test_the_command_is_one_that_the_command_line_takes() -> None:
    entry, command = json.loads(of("ENTRYPOINT")[0]), json.loads(of("CMD")[0])
    assert entry == ["cascade", "serve"]
    params = read(command)
    assert (params["hostname"], str(params["port"])) == ("0.0.0.0", of("EXPOSE")[0])
    assert read(container()["args"]) == params


def test_health_checks_ask_the_port_that_is_served() -> None:
    (check,) = of("HEALTHCHECK")
    told = json.loads(check[check.index("CMD") + 3 :])
    assert f":{of('EXPOSE')[0]}/health'" in told[-1]
    compile(told[-1], "HEALTHCHECK", "exec")
    (port,) = container()["ports"]
    assert str(port["containerPort"]) == of("EXPOSE")[0]
    probes = {name: container()[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert [probes[name]["path"] for name in probes] == ["/health", "/v2/health/ready", "/health"]
    annotations = manifests()["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert (annotations["prometheus.io/port"], annotations["prometheus.io/path"]) == (of("EXPOSE")[0], "/metrics")


def test_pods_write_nothing_and_are_nobody() -> None:
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    security = container()["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == of("USER")[0]
    assert pod["automountServiceAccountToken"] is False
    limits = container()["resources"]
    assert limits["limits"] == limits["requests"]
    assert set(limits["limits"]) == {"cpu", "memory"}
    environment = dict(re.findall(r"(\w+)=(\S+)", of("ENV")[0]))
    mounts = [mount["mountPath"] for mount in container()["volumeMounts"]]
    assert mounts == [environment["HOME"]], "what is written goes to memory"
    assert pod["terminationGracePeriodSeconds"] > int(container()["lifecycle"]["preStop"]["exec"]["command"][1]) + 30


def test_the_service_finds_the_pods() -> None:
    deployment, service = manifests()["Deployment"], manifests()["Service"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == container()["ports"][0]["name"]


def test_the_commands_in_the_comments_build_this_file() -> None:
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^# {3}(docker .*?)(?: {3,}.*)?$", text, flags=re.MULTILINE)]
    builds = [words for words in commands if words[1] == "build"]
    assert len(builds) == 2
    for words in builds:
        assert words[words.index("-f") + 1] == "docker/Dockerfile"
        for argument in (word for word in words if word.startswith("MODEL=")):
            assert (ROOT / argument.removeprefix("MODEL=") / "cascade.json").is_file()
    assert all("--read-only" in words for words in commands if words[1] == "run")
