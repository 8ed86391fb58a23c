/** Writes `*.machine.json`. */
import { hex } from '../abi/address.ts';
import type { MachineDescription } from '../machine/description.ts';

const ADDRESS_FIELDS: ReadonlySet<string> = new Set(['start', 'end']);

/**
 * The description as JSON text that the reader takes back unchanged: addresses in hexadecimal, one list entry a
 * line.
 * @public
 */
export function describeMachine(description: MachineDescription): string {
  const fields = Object.entries(description).map(([name, value]) => {
    if (!Array.isArray(value) || value.length === 0) return `  "${name}": ${oneLine(value)}`;
    const entries = value.map((entry) => `    ${oneLine(entry)}`);
    return `  "${name}": [\n${entries.join(',\n')}\n  ]`;
  });
  return `{\n${fields.join(',\n')}\n}\n`;
}

function oneLine(value: unknown): string {
  return JSON.stringify(value, (name, field) =>
    ADDRESS_FIELDS.has(name) && typeof field === 'number' ? hex(field) : field,
  );
}
