// Strict JSON (RFC 8259) in UTF-8: no byte order mark, no duplicate key, no lone surrogate, bounded depth.
// An integer token becomes a BigInt and any other number a Number, so that int64 and float64 stay apart;
// an object becomes a Map, which keeps the order of its members and has no special keys.

export const MAX_DEPTH = 64;
export const INT64_MIN = -(2n ** 63n);
export const INT64_MAX = 2n ** 63n - 1n;

export class JsonError extends Error {}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const SPACE = /[ \t\n\r]*/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const HEX4 = /[0-9a-fA-F]{4}/y;
const WORDS = { t: ['true', true], f: ['false', false], n: ['null', null] };
const ESCAPES = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' };

export function parseJson(bytes, maxDepth = MAX_DEPTH) {
  let text;
  try {
    text = UTF8.decode(bytes);
  } catch {
    throw new JsonError('not UTF-8');
  }
  const parser = new Parser(text, maxDepth);
  const value = parser.value(0);
  parser.match(SPACE);
  if (parser.at !== text.length) parser.fail('text after the document');
  return value;
}

class Parser {
  constructor(text, maxDepth) {
    Object.assign(this, { text, maxDepth, at: 0 });
  }

  fail(what) {
    throw new JsonError(`${what} at character ${this.at}`);
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at += found[0].length;
    return found;
  }

  take(character) {
    this.match(SPACE);
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  expect(character) {
    if (!this.take(character)) this.fail(`${character} wanted`);
  }

  value(depth) {
    this.match(SPACE);
    const first = this.text[this.at];
    if (first === '{' || first === '[') {
      if (depth === this.maxDepth) this.fail(`nesting deeper than ${this.maxDepth}`);
      this.at += 1;
      return first === '{' ? this.object(depth + 1) : this.array(depth + 1);
    }
    if (first === '"') return this.string();
    const word = WORDS[first];
    if (word && this.text.startsWith(word[0], this.at)) {
      this.at += word[0].length;
      return word[1];
    }
    const number = this.match(NUMBER) ?? this.fail('no JSON value');
    return number[1] || number[2] ? Number(number[0]) : BigInt(number[0]);
  }

  array(depth) {
    const items = [];
    if (this.take(']')) return items;
    do items.push(this.value(depth)); while (this.take(','));
    this.expect(']');
    return items;
  }

  object(depth) {
    const members = new Map();
    if (this.take('}')) return members;
    do {
      this.match(SPACE);
      const key = this.string();
      if (members.has(key)) this.fail(`duplicate key ${JSON.stringify(key)}`);
      this.expect(':');
      members.set(key, this.value(depth));
    } while (this.take(','));
    this.expect('}');
    return members;
  }

  string() {
    this.expect('"');
    const parts = [];
    for (;;) {
      parts.push(this.match(PLAIN)[0]);
      const next = this.text[this.at];
      this.at += 1;
      if (next === '"') break;
      if (next !== '\\') this.fail('control character or end of text in a string');
      parts.push(this.escape());
    }
    const string = parts.join('');
    return string.isWellFormed() ? string : this.fail('lone surrogate');
  }

  escape() {
    const letter = this.text[this.at];
    this.at += 1;
    if (letter === 'u') {
      const digits = this.match(HEX4) ?? this.fail('four hexadecimal digits wanted');
      return String.fromCharCode(parseInt(digits[0], 16));
    }
    return Object.hasOwn(ESCAPES, letter ?? '') ? ESCAPES[letter] : this.fail('unknown escape');
  }
}
