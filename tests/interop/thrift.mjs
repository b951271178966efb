// The compact protocol of Apache Thrift, as far as the footer and the page headers of Parquet need it.

const MAX_DEPTH = 16;

export class Cursor {
  constructor(bytes, at = 0) {
    Object.assign(this, { bytes, at });
  }

  get left() {
    return this.bytes.length - this.at;
  }

  /** The next `length` bytes; a length that the file does not have is refused before anything is made of it. */
  take(length) {
    if (!(length >= 0 && length <= this.left)) throw new Error('a declared size exceeds the bytes that are there');
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  byte() {
    return this.take(1)[0];
  }

  /** Unsigned LEB128 of at most 64 bits, as a BigInt. */
  varint() {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.byte();
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw new Error('varint longer than 64 bits');
  }

  zigzag() {
    const value = this.varint();
    return (value >> 1n) ^ -(value & 1n);
  }

  size() {
    return Number(this.varint());
  }
}

/** A struct, as an object from field number to value: numbers, bools, bytes, arrays and structs. */
export function readStruct(cursor, depth = 0) {
  if (depth > MAX_DEPTH) throw new Error('nested too deep');
  const fields = {};
  for (let id = 0; ; ) {
    const head = cursor.byte();
    if (head === 0) return fields;
    id = head >> 4 ? id + (head >> 4) : Number(cursor.zigzag());
    const type = head & 15;
    fields[id] = type === 1 || type === 2 ? type === 1 : readValue(cursor, type, depth);
  }
}

function readValue(cursor, type, depth) {
  if (type === 1 || type === 2) return cursor.byte() === 1; // a bool within a list
  if (type === 3) return cursor.byte();
  if (type >= 4 && type <= 6) return Number(cursor.zigzag());
  if (type === 7) return cursor.take(8).readDoubleLE();
  if (type === 8) return cursor.take(cursor.size());
  if (type === 9 || type === 10) return readList(cursor, depth);
  if (type === 12) return readStruct(cursor, depth + 1);
  throw new Error(`Thrift type ${type}, which Parquet does not use`);
}

function readList(cursor, depth) {
  const head = cursor.byte();
  const size = head >> 4 === 15 ? cursor.size() : head >> 4;
  if (size > cursor.left) throw new Error('a declared size exceeds the bytes that are there');
  if (depth > MAX_DEPTH) throw new Error('nested too deep');
  const items = [];
  for (let index = 0; index < size; index += 1) items.push(readValue(cursor, head & 15, depth + 1));
  return items;
}
