// A cascade that classifies texts in the browser: tokenizer, routers, exits and packing, without a server.
// Graphs run on onnxruntime-web, which is given. Answers are those of the Python engine.

const MASKED = -40; // what padding gets, as in engine/packing.py
const LEAST = 1e-6; // no tier is surer than that, as in core/confidence.py
const BATCH_TOKENS = 1024;

/** BERT's tokenizer: cleaning, lower case, accents, words and punctuation, then the longest pieces first. */
export class WordPiece {
  constructor(told) {
    const { normalizer, pre_tokenizer: words, model } = told;
    const known = normalizer?.type === "BertNormalizer" && words?.type === "BertPreTokenizer" && model.type === "WordPiece";
    if (!known) throw new Error("the tokenizer must be BERT's WordPiece, got another one; take a bundle that has it");
    this.normalizer = normalizer;
    this.model = model;
    this.vocabulary = new Map(Object.entries(model.vocab));
    this.added = new Map(told.added_tokens.map((one) => [one.content, one.id]));
    this.unknown = this.vocabulary.get(model.unk_token);
    this.pattern = new RegExp(`(${[...this.added.keys()].map((one) => one.replace(/[[\]]/g, "\\$&")).join("|")})`);
    const ends = told.post_processor.single.filter((one) => one.SpecialToken).map((one) => this.added.get(one.SpecialToken.id));
    [this.first, this.last] = ends;
  }

  /** Ids of a text with its special tokens, at most so many: the last one stays. */
  encode(text, most = Infinity) {
    const ids = [this.first];
    for (const part of text.split(this.pattern)) {
      if (this.added.has(part)) ids.push(this.added.get(part));
      else for (const word of this.#normalized(part).match(/[\p{P}$+<=>^`|~]|[^\s\p{P}$+<=>^`|~]+/gu) ?? []) this.#pieces(word, ids);
    }
    ids.push(this.last);
    return ids.length > most ? [...ids.slice(0, most - 1), this.last] : ids;
  }

  #normalized(text) {
    const { clean_text: clean, handle_chinese_chars: apart, lowercase, strip_accents: accents } = this.normalizer;
    if (clean) text = text.replace(/[\0\ufffd]|(?![\t\n\r])[\p{Cc}\p{Cf}\p{Cn}\p{Co}]/gu, "").replace(/\s/gu, " ");
    if (apart) text = text.replace(/[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu, " $& ");
    if (accents ?? lowercase) text = text.normalize("NFD").replace(/\p{Mn}/gu, "");
    return lowercase ? [...text].map((one) => one.toLowerCase()).join("") : text;
  }

  #pieces(word, ids) {
    const letters = [...word];
    const { continuing_subword_prefix: prefix, max_input_chars_per_word: longest } = this.model;
    if (letters.length > longest) return ids.push(this.unknown);
    const begun = ids.length;
    for (let begin = 0, end; begin < letters.length; begin = end) {
      let id;
      for (end = letters.length; end > begin && id === undefined; end--)
        id = this.vocabulary.get((begin ? prefix : "") + letters.slice(begin, end).join(""));
      end++;
      if (id === undefined) {
        ids.length = begun;
        return ids.push(this.unknown);
      }
      ids.push(id);
    }
    return undefined;
  }
}

/** Probabilities of a row of logits, with several labels at once or one. */
function probabilities(logits, { temperature, prior, several }) {
  const scaled = logits.map((one, at) => Math.fround(one / temperature) + (prior ? prior[at] : 0));
  if (several) return scaled.map((one) => 1 / (1 + Math.exp(-one)));
  const most = scaled.reduce((a, b) => Math.max(a, b));
  const powers = scaled.map((one) => Math.exp(one - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((one) => one / sum);
}

function evidence(found, weight, several) {
  const sure = (one) => Math.log(Math.min(Math.max(one, LEAST), 1));
  return found.map((one) => weight * (several ? sure(one) - sure(1 - one) : sure(one)));
}

const largest = (found, several) =>
  several ? found.reduce((least, one) => Math.min(least, Math.max(one, 1 - one)), 1) : found.reduce((a, b) => Math.max(a, b));
const margin = (found, several) => {
  if (several) return found.reduce((least, one) => Math.min(least, Math.abs(2 * one - 1)), 1);
  const [first, second] = [...found].sort((a, b) => b - a);
  return first - second;
};

/** Whether a unit leaves at an exit, by the written form of a policy. */
function leaves(told, exit, layer, values, several) {
  const threshold = Array.isArray(told.threshold) ? told.threshold[exit] : told.threshold;
  switch (told.policy) {
    case "never":
      return false;
    case "AtExit":
      return layer >= told.layer;
    case "MaxProbability":
      return Math.fround(largest(values, several)) >= threshold;
    case "Margin":
      return Math.fround(margin(values, several)) >= threshold;
    default:
      throw new Error(`an exit policy must be never, AtExit, MaxProbability or Margin, got ${told.policy}`);
  }
}

/** Whether the next tier is asked, by the written form of a router. `sure`: the confidence. */
function defers(told, sure) {
  if (told.policy === "defer_none") return false;
  if (told.policy === "Threshold") return !(Math.fround(sure) >= told.threshold);
  throw new Error(`a router must be Threshold, defer_all or defer_none, got ${told.policy}`);
}

/** Arrays that packed stages read, by name; `lengths`: tokens of each row. As engine/packing.py makes them. */
export function packed(lengths, heads) {
  const rows = lengths.length, longest = Math.max(...lengths), tokens = lengths.reduce((a, b) => a + b, 0);
  const firsts = lengths.map(((end) => (length) => (end += length) - length)(0));
  const grid = { head_gather: new BigInt64Array(rows * heads * longest), head_scatter: new BigInt64Array(tokens * heads) };
  const bias = new Float32Array(rows * longest).fill(MASKED), weights = new Float32Array(rows * longest);
  const gather = new BigInt64Array(rows * longest), positions = new BigInt64Array(tokens);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < longest; column++) {
      const inside = column < lengths[row], token = firsts[row] + (inside ? column : 0), place = row * longest + column;
      gather[place] = BigInt(token);
      if (inside) [bias[place], weights[place], positions[token]] = [0, 1, BigInt(column)];
      for (let head = 0; head < heads; head++) {
        const at = (row * heads + head) * longest + column;
        grid.head_gather[at] = BigInt(token * heads + head);
        if (inside) grid.head_scatter[token * heads + head] = BigInt(at);
      }
    }
  return {
    tokens, firsts, positions,
    feeds: {
      head_gather: ["int64", grid.head_gather, [rows, heads, longest]],
      head_scatter: ["int64", grid.head_scatter, [tokens, heads]],
      bias: ["float32", bias, [rows, 1, 1, longest]],
      gather: ["int64", gather, [rows, longest]],
      weights: ["float32", weights, [rows, 1, longest]],
      counts: ["float32", Float32Array.from(lengths), [rows, 1]],
      firsts: ["int64", BigInt64Array.from(firsts, BigInt), [rows]],
    },
  };
}

export class Classifier {
  /**
   * Open a bundle. `told`: its manifest, of format 3; `read`: from a path in it to its bytes; `ort`: onnxruntime-web;
   * `progress`: called with the share that is loaded.
   */
  static async load(told, read, ort, progress = () => {}) {
    const tokenizers = new Map(), tiers = [], all = told.tiers.flatMap(files).length;
    let done = 0;
    for (const tier of told.tiers) {
      if (!tokenizers.has(tier.tokenizer)) {
        const text = new TextDecoder().decode(await read(tier.tokenizer));
        tokenizers.set(tier.tokenizer, new WordPiece(JSON.parse(text)));
      }
      const sessions = [];
      for (const file of files(tier)) {
        sessions.push(await ort.InferenceSession.create(await read(file), { executionProviders: ["wasm"] }));
        progress(++done / all);
      }
      tiers.push({ ...tier, sessions, encoder: tokenizers.get(tier.tokenizer) });
    }
    return new Classifier(told, tiers, ort);
  }

  constructor(told, tiers, ort) {
    [this.tiers, this.policies, this.labels, this.ort] = [tiers, told.policies, told.labels, ort];
    this.several = told.problem_type === "multi_label_classification";
  }

  /** Answers in the order of the texts: `{label, score, probabilities, tier, exit_layer}`. */
  async predict(texts) {
    const { routers, blend, temperatures, exits } = this.policies, answers = new Array(texts.length);
    let live = texts.map((_, at) => at), prior = new Map();
    for (const [number, tier] of this.tiers.entries()) {
      const router = routers[number];
      if (router?.policy === "defer_all") continue; // it is not run, and has no say
      const rows = new Map(live.map((at) => [at, tier.encoder.encode(texts[at], tier.max_length)]));
      const call = { tier, rows, prior, temperatures: temperatures[number], policy: exits[number] };
      const found = new Map();
      for (const batch of batches(live, rows)) {
        if (tier.kind === "multi_exit") await this.#packed(batch, call, found);
        else await this.#padded(batch, call, found);
      }
      for (const [at, { values, layer }] of found) answers[at] = this.#answer(values, number + 1, layer);
      const later = router ? live.filter((at) => defers(router, largest(found.get(at).values, this.several))) : [];
      const weight = blend[number];
      prior = weight ? new Map(later.map((at) => [at, evidence(found.get(at).values, weight, this.several)])) : new Map();
      live = later;
    }
    return answers;
  }

  #answer(values, tier, layer) {
    const best = values.indexOf(values.reduce((a, b) => Math.max(a, b)));
    const label = this.several ? this.labels.filter((_, at) => values[at] >= 0.5) : this.labels[best];
    return { label, score: values[best], probabilities: values, tier, exit_layer: layer };
  }

  /** Run a graph. `feeds`: tensors, or what a tensor is made of, by name. */
  async #run(session, feeds) {
    const made = {};
    for (const name of session.inputNames) {
      if (!feeds[name]) throw new Error(`a graph must read ${Object.keys(feeds).join(", ")} alone, got ${name}`);
      made[name] = Array.isArray(feeds[name]) ? new this.ort.Tensor(...feeds[name]) : feeds[name];
    }
    return session.run(made);
  }

  #said(logits, batch, temperature, prior) {
    const values = [...logits.data], width = values.length / batch.length;
    return batch.map((at, row) => {
      const own = values.slice(row * width, (row + 1) * width);
      return probabilities(own, { temperature, prior: prior.get(at), several: this.several });
    });
  }

  async #padded(batch, { tier, rows, prior, temperatures }, found) {
    const longest = Math.max(...batch.map((at) => rows.get(at).length)), size = [batch.length, longest];
    const [ids, mask, types] = [0, 1, 2].map(() => new BigInt64Array(batch.length * longest));
    batch.forEach((at, row) =>
      rows.get(at).forEach((id, column) => {
        [ids[row * longest + column], mask[row * longest + column]] = [BigInt(id), 1n];
      }),
    );
    const { logits } = await this.#run(tier.sessions[0], {
      input_ids: ["int64", ids, size],
      attention_mask: ["int64", mask, size],
      token_type_ids: ["int64", types, size],
    });
    this.#said(logits, batch, temperatures[0], prior).forEach((values, row) => found.set(batch[row], { values, layer: 0 }));
  }

  async #packed(batch, { tier, rows, prior, temperatures, policy }, found) {
    const { heads, width, stages, position_offset: offset } = tier, [embed, ...graphs] = tier.sessions;
    let live = batch, lengths = live.map((at) => rows.get(at).length), grid = packed(lengths, heads);
    const ids = BigInt64Array.from(live.flatMap((at) => rows.get(at)), BigInt), size = [grid.tokens];
    let { hidden } = await this.#run(embed, {
      input_ids: ["int64", ids, size],
      token_type_ids: ["int64", new BigInt64Array(grid.tokens), size],
      position_ids: ["int64", grid.positions.map((one) => one + BigInt(offset)), size],
    });
    for (const [index, { layer }] of stages.entries()) {
      const made = await this.#run(graphs[index], { hidden, ...grid.feeds }), last = index === stages.length - 1;
      const said = this.#said(made.logits, live, temperatures[index], prior);
      const stays = said.map((values) => !last && !leaves(policy, index, layer, values, this.several));
      said.forEach((values, row) => stays[row] || found.set(live[row], { values, layer }));
      if (!stays.includes(true)) return;
      hidden = made.hidden_out;
      if (!stays.includes(false)) continue;
      const kept = live.flatMap((_, row) => (stays[row] ? [row] : []));
      const parts = kept.map((row) => hidden.data.subarray(grid.firsts[row] * width, (grid.firsts[row] + lengths[row]) * width));
      [live, lengths] = [kept.map((row) => live[row]), kept.map((row) => lengths[row])];
      grid = packed(lengths, heads);
      const left = new Float32Array(grid.tokens * width);
      parts.reduce((end, part) => (left.set(part, end), end + part.length), 0);
      hidden = new this.ort.Tensor("float32", left, [grid.tokens, width]);
    }
  }
}

/** The graphs of a tier, as they are run. */
export const files = (tier) => (tier.kind === "multi_exit" ? [tier.embed, ...tier.stages.map((one) => one.file)] : [tier.file]);

/** Numbers of rows in batches of so many tokens, like lengths side by side. */
function batches(numbers, rows) {
  const made = [], length = (at) => rows.get(at).length;
  let tokens = Infinity;
  for (const at of [...numbers].sort((a, b) => length(a) - length(b) || a - b)) {
    tokens += length(at);
    if (tokens > BATCH_TOKENS) [tokens] = [length(at), made.push([])];
    made.at(-1).push(at);
  }
  return made;
}
