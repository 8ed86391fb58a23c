/** The table of docs/conformance.md, as the catalogue says it. */
import { CATALOGUE, type Case, COLUMNS, type Suite } from './catalogue.ts';

const HEADS = ['plain', 'sw-protected', 'tdx', 'snp', 'pkvm', 'real kernel'];

/** Rows of every suite, with notes below that say why a case does not apply somewhere. */
export function conformanceTable(): string {
  const notes: string[] = [];
  const sections = Object.entries<Suite>(CATALOGUE).map(([name, { file, cases }]) =>
    [
      `### ${name}`,
      file === '' ? 'Not restated.' : `\`test/conformance/${file}\``,
      '',
      row(['case', '', ...HEADS]),
      row(['---', '---', ...HEADS.map(() => ':-:')]),
      ...Object.entries(cases).map(([id, found]) => caseRow(id, found, notes)),
    ].join('\n'),
  );
  const reasons = notes.map((reason, i) => `${i + 1}. ${reason}`).join('\n');
  return [...sections, `### Why a case does not apply\n${reasons}`].join('\n\n');
}

function caseRow(id: string, { title, on }: Case, notes: string[]): string {
  const cells = COLUMNS.map((column) => {
    const verdict = on[column];
    return verdict === 'passes' ? 'passes' : `n/a ${noteOf(verdict.reason, notes)}`;
  });
  return row([`\`${id}\``, title, ...cells]);
}

function noteOf(reason: string, notes: string[]): string {
  if (!notes.includes(reason)) notes.push(reason);
  return `(${notes.indexOf(reason) + 1})`;
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}
