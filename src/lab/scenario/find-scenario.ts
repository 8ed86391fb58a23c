/** Scenarios by name: a file, or one that comes with tdxlab. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { InputError } from '../../abi/input-error.ts';
import { parseScenario } from './language/parse-scenario.ts';
import type { Scenario } from './scenario.ts';

const SHIPPED = fileURLToPath(new URL('../../../scenarios', import.meta.url));
const SUFFIX = '.yaml';

/** Names of the scenarios that come with tdxlab, ascending. @public */
export function shippedScenarios(): readonly string[] {
  return readdirSync(SHIPPED)
    .filter((name) => name.endsWith(SUFFIX))
    .map((name) => name.slice(0, -SUFFIX.length))
    .sort();
}

/** Reads the scenario in a file, or the shipped one of a name. Throws InputError. @public */
export async function findScenario(name: string): Promise<Scenario> {
  const { text, file } = scenarioText(name);
  return parseScenario(text, file);
}

/** The text of the scenario in a file, or of the shipped one of a name, and what errors call it. Throws InputError. @public */
export function scenarioText(name: string): { readonly text: string; readonly file: string } {
  const isShipped = shippedScenarios().includes(name);
  const file = isShipped ? join(SHIPPED, `${name}${SUFFIX}`) : name;
  try {
    return { text: readFileSync(file, 'utf8'), file: isShipped ? `scenarios/${name}${SUFFIX}` : file };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT')
      throw new InputError(`${name}: there is no such file; scenarios are ${shippedScenarios().join(', ')}`);
    throw new InputError(`${name}: cannot be read (${code})`);
  }
}
