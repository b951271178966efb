// The typed tree of `config.json` (spec/1.0/config.md).

import { INT64_MAX, INT64_MIN, parseJson } from './json.mjs';
import { Refused } from './files.mjs';
import { valid } from './schema.mjs';
import { formatNamed, refusal } from './versions.mjs';

/** A value with a tag that JavaScript has no type for: tuple, path, bytes, dict, repr or one of a later version. */
export class Tagged {
  constructor(tag, value) {
    Object.assign(this, { tag, value });
  }
}

/** The configuration: Map, array, string, bool, null, Number, BigInt and Tagged. Throws if it is damaged. */
export function decodeConfig(bytes) {
  const document = parseJson(bytes);
  const format = formatNamed(document, 'blackbox-config');
  const reason = format && refusal(format);
  if (reason) throw new Refused(reason);
  if (!valid(document, 'config.schema.json')) throw new Error('not valid by config.schema.json');
  const trees = [document.get('config'), ...(document.get('replaced') ?? []).map((entry) => entry.get('values'))];
  const [config] = trees.map(decode);
  if (config instanceof Map || config.tag === '$dict') return config;
  throw new Error('the outermost value is no mapping');
}

const inInt64 = (integer) => integer >= INT64_MIN && integer <= INT64_MAX;

function decode(node) {
  if (typeof node === 'bigint' && !inInt64(node)) throw new Error('integer beyond int64');
  if (node === Infinity || node === -Infinity) throw new Error('number beyond float64');
  if (Array.isArray(node)) return node.map(decode);
  if (!(node instanceof Map)) return node;
  const [key] = node.keys();
  if (key?.startsWith('$')) return decodeTag(key, node.get(key));
  return new Map([...node].map(([name, member]) => [name, decode(member)]));
}

function decodeTag(key, value) {
  if (key === '$float') return Number(value);
  if (key !== '$int') return new Tagged(key, decode(value)); // nothing is opened, imported or built
  if (inInt64(BigInt(value))) throw new Error('$int within int64');
  return BigInt(value);
}
