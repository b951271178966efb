// As much of JSON Schema 2020-12 as the schemas of the format use. An integer is an integer *token*.

import fs from 'node:fs';
import { parseJson } from './json.mjs';

const FOLDER = new URL('../../schemas/1.0/', import.meta.url);
const documents = new Map();
const resolved = new Map();
const patterns = new Map();

function cached(cache, key, make) {
  if (!cache.has(key)) cache.set(key, make(key));
  return cache.get(key);
}

/** Is the value valid by a schema, given as `file.schema.json` and perhaps `#/pointer`? */
export function valid(value, reference) {
  return check(value, ...resolve(reference, null));
}

/** Is one member of an object valid by the schema of its document? Of an unknown member no schema says anything. */
export function validMember(name, value, file) {
  const schema = resolve(file, null)[0].get('properties').get(name);
  return schema === undefined || check(value, schema, file);
}

// [schema, file it stands in]
function resolve(reference, base) {
  const [file, pointer = ''] = reference.split('#');
  const name = file || base;
  return cached(resolved, `${name}#${pointer}`, () => {
    let schema = cached(documents, name, () => parseJson(fs.readFileSync(new URL(name, FOLDER))));
    for (const key of pointer.split('/').slice(1)) schema = schema.get(key);
    return [schema, name];
  });
}

const TYPES = {
  null: (v) => v === null,
  boolean: (v) => typeof v === 'boolean',
  string: (v) => typeof v === 'string',
  number: (v) => typeof v === 'number' || typeof v === 'bigint',
  integer: (v) => typeof v === 'bigint',
  array: (v) => Array.isArray(v),
  object: (v) => v instanceof Map,
};
const same = (a, b) => a === b; // the schemas compare strings and booleans only
const regexp = (source) => cached(patterns, source, () => new RegExp(source, 'u'));
const always = () => true;

// keyword -> [type it speaks of, (value, argument, check of a subschema, whole schema) -> holds?]
const KEYWORDS = {
  type: ['any', (v, types) => (Array.isArray(types) ? types.some((type) => TYPES[type](v)) : TYPES[types](v))],
  const: ['any', (v, wanted) => same(v, wanted)],
  enum: ['any', (v, values) => values.some((wanted) => same(v, wanted))],
  not: ['any', (v, schema, sub) => !sub(v, schema)],
  allOf: ['any', (v, schemas, sub) => schemas.every((schema) => sub(v, schema))],
  anyOf: ['any', (v, schemas, sub) => schemas.some((schema) => sub(v, schema))],
  if: ['any', (v, schema, sub, all) => {
    const branch = all.get(sub(v, schema) ? 'then' : 'else');
    return branch === undefined || sub(v, branch);
  }],
  minimum: ['number', (v, least) => v >= least],
  maximum: ['number', (v, most) => v <= most],
  minLength: ['string', (v, least) => [...v].length >= least],
  maxLength: ['string', (v, most) => [...v].length <= most],
  pattern: ['string', (v, source) => regexp(source).test(v)],
  items: ['array', (v, schema, sub) => v.every((item) => sub(item, schema))],
  minItems: ['array', (v, least) => v.length >= least],
  maxItems: ['array', (v, most) => v.length <= most],
  uniqueItems: ['array', (v) => new Set(v).size === v.length],
  required: ['object', (v, keys) => keys.every((key) => v.has(key))],
  minProperties: ['object', (v, least) => v.size >= least],
  maxProperties: ['object', (v, most) => v.size <= most],
  propertyNames: ['object', (v, schema, sub) => [...v.keys()].every((key) => sub(key, schema))],
  properties: ['object', (v, properties, sub) =>
    [...properties].every(([key, schema]) => !v.has(key) || sub(v.get(key), schema))],
  additionalProperties: ['object', (v, schema, sub, all) =>
    [...v].every(([key, member]) => all.get('properties')?.has(key) || sub(member, schema))],
  dependentRequired: ['object', (v, table) =>
    [...table].every(([key, keys]) => !v.has(key) || keys.every((other) => v.has(other)))],
  dependentSchemas: ['object', (v, table, sub) =>
    [...table].every(([key, schema]) => !v.has(key) || sub(v, schema))],
  ...Object.fromEntries(['$schema', '$id', '$defs', 'title', 'description', 'then', 'else']
    .map((keyword) => [keyword, ['any', always]])),
};

function check(value, schema, base) {
  if (typeof schema === 'boolean') return schema;
  const sub = (v, s) => check(v, s, base);
  for (const [keyword, argument] of schema) {
    if (keyword === '$ref') {
      if (!check(value, ...resolve(argument, base))) return false;
      continue;
    }
    const [type, holds] = KEYWORDS[keyword]; // an unknown keyword throws: no check is skipped
    if ((type === 'any' || TYPES[type](value)) && !holds(value, argument, sub, schema)) return false;
  }
  return true;
}
