/** Keeps catalogue, tests and docs/conformance.md together. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CATALOGUE, type Suite } from './catalogue.ts';
import { conformanceTable } from './table.ts';

const HERE = new URL('./', import.meta.url);
const DOCUMENT = new URL('../../docs/conformance.md', HERE);
/** Tests that are no restated selftests. */
const OTHERS = ['table.test.ts', 'differential.test.ts'];

const suites = Object.entries<Suite>(CATALOGUE);

/** Names with which cases begin that a file registers itself: `test('T1 create_multiple: ...`. Others have no colon. */
function namesIn(source: string): string[] {
  return [...source.matchAll(/\b(?:it|test|withFiles)\(\s*'([A-Za-z_0-9]+)\b[^':]*: /g)].map(
    ([, name]) => name!,
  );
}

describe('docs/conformance.md', () => {
  it('has the table that the catalogue makes', () => {
    const [, table] = readFileSync(DOCUMENT, 'utf8').split(/^## The cases\n\n/m);
    expect(`${table?.trimEnd()}`).toBe(conformanceTable());
  });
});

describe('the catalogue', () => {
  it('knows every file of cases', () => {
    const files = readdirSync(HERE).filter((name) => name.endsWith('.test.ts') && !name.includes('.slow.'));
    const known = new Set(suites.map(([, { file }]) => file).filter((file) => file !== ''));
    expect(files.filter((file) => !OTHERS.includes(file)).sort()).toEqual([...known].sort());
  });

  it.each(suites.filter(([, { file }]) => file !== ''))('has the cases of %s', (name, { file, cases }) => {
    const source = readFileSync(new URL(file, HERE), 'utf8');
    // Such a file cannot be loaded unless its cases are the catalogue's.
    if (source.includes(`conformance('${name}'`)) return;
    expect(new Set(namesIn(source))).toEqual(new Set(Object.keys(cases)));
  });

  it('says of cases without a file that they apply nowhere', () => {
    const without = suites
      .filter(([, { file }]) => file === '')
      .flatMap(([, { cases }]) => Object.values(cases));
    expect(without.length).toBeGreaterThan(0);
    for (const { on } of without) expect(Object.values(on)).not.toContain('passes');
  });
});
