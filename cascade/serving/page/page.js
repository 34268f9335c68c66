// The page of `cascade serve`: answers with routes, thresholds to try, traffic. No library; nothing is kept.
const $ = (id) => document.getElementById(id);
const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
const sum = (numbers) => numbers.reduce((left, right) => left + right, 0);

function make(tag, told = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(told)) {
    if (name in node) node[name] = value; else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function bar(share) {
  const inside = make("span");
  inside.style.width = `${100 * Math.min(Math.max(share, 0), 1)}%`;
  return make("div", { className: "bar", ariaHidden: "true" }, inside);
}

let models = [], model = null, most = 64;
let texts = [], plain = null, tried = null, turn = 0;

async function ask(path, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if ($("key").value) headers.Authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode($("key").value))}`; // as UTF-8
  const reply = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  if (reply.ok) return reply.json();
  if (reply.status === 401) {
    $("locked").hidden = false;
    throw new Error("This server asks for its API key.");
  }
  const text = await reply.text();
  let message = text;
  try { message = JSON.parse(text).error ?? text; } catch { /* plain text */ }
  throw new Error(`${reply.status}: ${message || reply.statusText}`);
}

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").className = bad ? "bad" : "quiet";
}

// Where a unit can be answered, cheapest first: [tier, layer], layer 0 for a tier without exits.
const places = () => model.tiers.flatMap((layers, at) => (layers.length ? layers : [0]).map((layer) => [at + 1, layer]));
const named = (tier, layer) => (layer ? `tier ${tier}, layer ${layer}` : `tier ${tier}`);
const brief = (tier, layer) => (layer ? `${tier}·${layer}` : `${tier}`);

function tint(tier, layer) {
  const all = places();
  const at = all.findIndex(([one, other]) => one === tier && other === layer);
  return `p${Math.round((6 * Math.max(at, 0)) / Math.max(all.length - 1, 1))}`;
}

// Units of an answer: of a tagger the words of all texts.
const tagging = () => model.task === "token-classification";
const units = (found) => (tagging() ? found.answers.flat() : found.answers).map((unit) => (tagging() ? unit.slice(1) : unit));
const said = ([first]) => (tagging() ? first : first[0][0]);
// Layers that a unit went through: all those of the tiers before, and those before its exit.
const depth = ([, tier, layer]) => sum(model.tiers.slice(0, tier - 1).map((layers) => (layers.length ? layers.at(-1) : 0))) + layer;

async function load() {
  try {
    const told = await ask("page/models");
    [models, most] = [told.models, told.texts];
  } catch (error) {
    say(error.message, true);
    return;
  }
  $("locked").hidden = !$("key").value;
  say("");
  $("model").replaceChildren(...models.map(({ name }) => make("option", { value: name }, name)));
  choose();
}

function choose() {
  model = models.find(({ name }) => name === $("model").value) ?? models[0];
  $("about").textContent = `${tagging() ? "tags words" : model.regression ? "scores texts" : "classifies texts"}, `
    + `${model.labels} label${model.labels > 1 ? "s" : ""}, ${model.tiers.length} tier${model.tiers.length > 1 ? "s" : ""}, `
    + (model.certified ? "certified" : "no certificate");
  $("knobs").replaceChildren(...(model.knobs.length ? model.knobs.map(knob) : [make("p", {}, "This model has none.")]));
  [texts, plain, tried] = [[], null, null];
  draw();
}

function knob({ kind, tier, threshold }, at) {
  const start = Array.isArray(threshold) ? sum(threshold) / threshold.length : threshold ?? 1;
  const told = make("output", { id: `told${at}` }, Array.isArray(threshold) ? "one per exit" : threshold ?? "none");
  const slider = make("input", {
    type: "range", id: `knob${at}`, min: 0, max: 1, step: 0.005, value: start,
    oninput: () => {
      slider.dataset.moved = "yes";
      told.textContent = Number(slider.value).toFixed(3);
      $("reset").disabled = false;
      clearTimeout(knob.timer);
      knob.timer = setTimeout(() => answer(false), 150);
    },
  });
  told.htmlFor.add(slider.id);
  const text = kind === "defer" ? `Tier ${tier} defers what it is less sure of than` : `Tier ${tier} is left early where it is as sure as`;
  return make("div", { className: "knob" }, make("label", { htmlFor: slider.id }, text), told, slider);
}

function thresholds() {
  const sliders = [...$("knobs").querySelectorAll("input")];
  return sliders.some(({ dataset }) => dataset.moved)
    ? sliders.map(({ dataset, value }) => (dataset.moved ? Number(value) : null))
    : null;
}

async function answer(fresh) {
  const mine = ++turn;
  if (fresh) {
    const lines = $("texts").value.split("\n").filter((line) => line.trim());
    texts = lines.slice(0, most).map((line) => (line.includes("\t") && !tagging() ? line.split(/\t(.*)/s, 2) : line));
    if (!texts.length) {
      say("Write a text first.", true);
      $("texts").focus();
      return;
    }
    $("said").dataset.cut = lines.length > most ? `, the first ${most} lines alone` : "";
    plain = null;
  }
  if (!texts.length) return;
  say("Asking…");
  try {
    const others = thresholds(), [asked, of] = [texts, model];
    const first = plain ?? await ask("page/preview", { model: of.name, inputs: asked });
    const second = others && await ask("page/preview", { model: of.name, inputs: asked, thresholds: others });
    if (mine !== turn) return;
    [plain, tried] = [first, second];
    say(`${texts.length} text${texts.length > 1 ? "s" : ""} answered${$("said").dataset.cut}.`);
    draw();
  } catch (error) {
    if (mine === turn) say(error.message, true);
  }
}

function draw() {
  $("found").hidden = $("changes").hidden = !plain;
  if (!plain) return;
  const shown = tried ?? plain, [now, before] = [units(shown), units(plain)];
  const rows = [
    ["Milliseconds", ({ milliseconds }) => milliseconds.toFixed(milliseconds < 10 ? 2 : 1)],
    ["Milliseconds per text", ({ milliseconds }) => (milliseconds / texts.length).toFixed(2)],
    ["Left to later tiers", (found) => percent(units(found).filter(([, tier]) => tier > 1).length / Math.max(units(found).length, 1))],
    ["Layers read, mean", (found) => (sum(units(found).map(depth)) / Math.max(units(found).length, 1)).toFixed(2)],
    ["Other answers", (found) => units(found).filter((unit, at) => said(unit) !== said(before[at])).length],
  ];
  $("compare").replaceChildren(...rows.map(([name, of]) =>
    make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, of(plain)), make("td", {}, tried ? of(tried) : "–"))));
  $("legend").replaceChildren(...places().map(([tier, layer]) => {
    const count = now.filter(([, one, other]) => one === tier && other === layer).length;
    return count ? make("li", { className: `place ${tint(tier, layer)}` }, `${named(tier, layer)}: ${count}`) : "";
  }));
  $("answers").replaceChildren(...shown.answers.map((found, at) => (tagging() ? tagged : classified)(texts[at], found, plain.answers[at])));
  $("curl").textContent = curl();
}

const route = (tier, layer, sure) => make("span", { className: `place ${tint(tier, layer)}` }, `${named(tier, layer)}, ${percent(sure)} sure`);

function classified(text, [scores, tier, layer, sure], [old]) {
  const item = make("li", {}, make("p", {}, Array.isArray(text) ? `${text[0]}  ⇥  ${text[1]}` : text));
  if (model.regression) item.append(make("p", {}, `${scores[0][0]}: ${scores[0][1].toFixed(4)}`));
  else {
    item.append(make("div", { className: "bars" }, ...scores.flatMap(([label, score]) =>
      [make("span", {}, label), bar(score), make("span", { className: "number" }, percent(score))])));
  }
  const last = make("p", { className: "row quiet" }, model.regression ? named(tier, layer) : route(tier, layer, sure));
  if (old[0][0] !== scores[0][0]) last.append(make("span", { className: "bad" }, `as in the bundle: ${old[0][0]}`));
  item.append(last);
  return item;
}

function tagged(text, words, before) {
  const letters = Array.from(text), parts = []; // offsets count characters, not JavaScript's UTF-16 units
  let end = 0;
  words.forEach(([[from, to], tag, tier, layer, sure], at) => {
    const other = before[at][1] !== tag;
    parts.push(letters.slice(end, from).join(""), make("span", {
      className: `word ${tint(tier, layer)}${other ? " other" : ""}`,
      title: `${tag}, ${named(tier, layer)}, ${percent(sure)} sure${other ? `; as in the bundle: ${before[at][1]}` : ""}`,
    }, letters.slice(from, to).join(""), make("small", {}, `${tag} ${brief(tier, layer)}`)));
    end = to;
  });
  return make("li", {}, make("p", { className: "words" }, ...parts, letters.slice(end).join("")));
}

function curl() {
  const path = tagging() ? "predict_tokens" : "predict";
  const body = JSON.stringify({ inputs: texts[0], routes: true, ...(models.length > 1 ? { model: model.name } : {}) });
  const key = $("key").value ? ' -H "Authorization: Bearer $API_KEY"' : "";
  return `curl ${new URL(path, location.href)} -H "Content-Type: application/json"${key} -d '${body.replaceAll("'", String.raw`'\''`)}'`;
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  answer(true);
});
$("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) answer(true);
});
$("model").addEventListener("change", choose);
$("key").addEventListener("change", load);
$("reset").addEventListener("click", () => {
  $("knobs").replaceChildren(...model.knobs.map(knob));
  $("reset").disabled = true;
  answer(false);
});

// Traffic: the server's counters, once a second, the last minute of them.
const MINUTE = 60, polls = [];
const found = ({ counters }, name, fits) => sum((counters[`cascade_${name}`] ?? []).filter(([told]) => fits(told)).map(([, value]) => value));
const growth = (name, fits = () => true, from = polls[0], to = polls.at(-1)) => Math.max(found(to, name, fits) - found(from, name, fits), 0);
const asked = ({ method }) => !/page|metrics|health|ping|ready|live|docs|openapi/.test(method);

// Below how many milliseconds this share of the last minute's answers stayed, as its histogram tells: between its bounds.
function quantile(share) {
  const bounds = [...new Set((polls.at(-1).counters.cascade_request_duration_seconds_bucket ?? []).map(([{ le }]) => le))]
    .sort((one, other) => Number(one.replace("+Inf", "Infinity")) - Number(other.replace("+Inf", "Infinity")));
  const counts = bounds.map((bound) => growth("request_duration_seconds_bucket", ({ le }) => le === bound));
  const wanted = share * (counts.at(-1) ?? 0), at = counts.findIndex((count) => count > 0 && count >= wanted);
  if (at < 0) return "–";
  if (bounds[at] === "+Inf") return `> ${1000 * bounds[at - 1]}`;
  const [low, below] = at ? [Number(bounds[at - 1]), counts[at - 1]] : [0, 0];
  return (1000 * (low + (Number(bounds[at]) - low) * (wanted - below) / Math.max(counts[at] - below, 1e-9))).toFixed(1);
}

function alarms() {
  const now = polls.at(-1).counters, told = [];
  for (const [{ model: name, what }, value] of now.cascade_monitor ?? []) {
    if (value && what === "alarm") told.push(`Alarm: ${name} differs from full depth more often than it may.`);
    if (value && what === "shifted") told.push(`Alarm: the texts of ${name} are of another kind than those it was calibrated on.`);
  }
  for (const [{ model: name }, value] of now.cascade_level ?? []) {
    if (value) told.push(`${name} answers at level ${value}, cheaper than set: more is asked than the CPUs can do.`);
  }
  return told.join(" ") || "No alarm.";
}

function traffic() {
  const last = polls.slice(-6), seconds = (last.at(-1).at - last[0].at) / 1000;
  const [requests, refused] = [growth("requests_total", asked), growth("requests_total", ({ code }) => code === "429")];
  const figures = {
    "Requests per second": seconds ? (growth("requests_total", asked, last[0]) / seconds).toFixed(1) : "–",
    "Half within, ms": quantile(0.5),
    "99 % within, ms": quantile(0.99),
    "Refused": percent(refused / Math.max(requests, 1)),
    "Degraded": percent(growth("degraded_total") / Math.max(requests, 1)),
    "Tokens waiting": found(polls.at(-1), "queue_size", () => true),
  };
  $("figures").replaceChildren(...Object.entries(figures).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, String(value)))));
  const rates = polls.slice(1).map((poll, at) => growth("requests_total", asked, polls[at], poll) / Math.max((poll.at - polls[at].at) / 1000, 0.001));
  const most = Math.max(...rates, 1), line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", rates.map((rate, at) => `${600 - (rates.length - 1 - at) * 10},${(76 - 72 * rate / most).toFixed(1)}`).join(" "));
  $("history").replaceChildren(line);
  $("history").setAttribute("aria-label", `From 0 to ${most.toFixed(1)}, now ${(rates.at(-1) ?? 0).toFixed(1)}`);
  const counts = model ? places().map(([tier, layer]) => [tier, layer, growth("routed_total", (told) =>
    told.model === model.name && Number(told.tier) === tier && Number(told.exit) === layer)]) : [];
  const every = sum(counts.map(([, , count]) => count));
  $("shares").replaceChildren(...counts.map(([tier, layer, count]) => make("li", {},
    make("span", { className: `place ${tint(tier, layer)}` }, named(tier, layer)), bar(every && count / every),
    make("span", { className: "number" }, every ? percent(count / every) : "–"))));
  if ($("alarms").textContent !== alarms()) $("alarms").textContent = alarms();
  $("alarms").className = alarms().startsWith("No ") ? "quiet" : "bad";
}

async function poll() {
  if (!document.hidden) {
    try {
      polls.push({ at: performance.now(), ...await ask("page/live") });
      if (polls.length > 1 && found(polls.at(-1), "requests_total", asked) < found(polls.at(-2), "requests_total", asked)) polls.splice(0, polls.length - 1);
      while (polls.at(-1).at - polls[0].at > 1000 * MINUTE) polls.shift();
      traffic();
    } catch (error) {
      $("alarms").textContent = `No news: ${error.message}`;
      $("alarms").className = "bad";
    }
  }
  setTimeout(poll, 1000);
}

load();
poll();
