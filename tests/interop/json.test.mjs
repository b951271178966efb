// node --test tests/interop

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JsonError, parseJson } from './json.mjs';

const parse = (text) => parseJson(Buffer.from(text));

test('an integer token is a BigInt and any other number a Number', () => {
  assert.deepEqual(parse('[1, -0, 1.0, 1e0, 9223372036854775807]'), [1n, 0n, 1, 1, 9223372036854775807n]);
});

test('an object keeps its order and has no special keys', () => {
  assert.deepEqual([...parse('{"b": 1, "__proto__": 2, "10": 3}').keys()], ['b', '__proto__', '10']);
});

test('nesting is allowed to a depth of 64 and no further', () => {
  assert.ok(parse('['.repeat(64) + ']'.repeat(64)));
  assert.throws(() => parse('['.repeat(65) + ']'.repeat(65)), JsonError);
});

const refused = [
  '', ' ', '{}{}', '[1,]', '{"a":1,}', "{'a':1}", '{a:1}', '01', '+1', '.5', '1.', '-', 'NaN', 'Infinity', 'nul',
  '{"a":1,"a":2}', '{"\\u0061":1,"a":2}', '[{"a":{"b":1,"b":2}}]', '"\n"', '"\\x"', '"\\u12g4"', '"\\ud800"',
  '"\\udc00\\ud800"', '"', '\ufeff1', '// 1\n1', '\u00a01', '[1 2]', '{"a" 1}',
];
for (const text of refused) {
  test(`refuses ${JSON.stringify(text)}`, () => assert.throws(() => parse(text), JsonError));
}

test('refuses what is not UTF-8', () => {
  for (const bytes of [[0x22, 0xff, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22], [0x22, 0xc0, 0x80, 0x22]]) {
    assert.throws(() => parseJson(Buffer.from(bytes)), JsonError);
  }
});
