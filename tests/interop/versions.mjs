// Which documents a reader of version 1 has to refuse (spec/1.0/versions.md).

/** Why a document that carries this `format` must be refused, or null. Version 1.0 defines no feature. */
export function refusal(format) {
  const major = /^([0-9]+)\.[0-9]+$/.exec(format.get('version'))?.[1];
  if (major !== undefined && Number(major) !== 1) return `version ${format.get('version')}`;
  const features = format.get('features');
  const unknown = Array.isArray(features) ? features.find((name) => typeof name === 'string') : undefined;
  return unknown === undefined ? null : `feature ${unknown}`;
}

/** The `format` of a document if it has the given name, else null. */
export function formatNamed(document, name) {
  const format = document instanceof Map ? document.get('format') : null;
  return format instanceof Map && format.get('name') === name ? format : null;
}
