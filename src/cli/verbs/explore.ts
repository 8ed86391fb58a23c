/** `tdxlab explore SCENARIO`: many seeds, or with --exhaustive every interleaving, until something does not hold. */
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
import { InputError } from '../../abi/input-error.ts';
import { exploreInterleavings } from '../../lab/explore/exhaustive/explore-interleavings.ts';
import { exploreScenario } from '../../lab/explore/seeds/explore-scenario.ts';
import { replayFile } from '../../lab/explore/seeds/scenario-file.ts';
import { findScenario, scenarioText } from '../../lab/scenario/find-scenario.ts';
import type { PolicySet } from '../../lab/scenario/scenario.ts';
import { formatCount, toJson } from '../format.ts';
import { type Io, style } from '../io.ts';
import { printExploration, printSearch } from '../print-exploration.ts';
import { Progress } from '../progress.ts';
import { parsePolicy } from '../scenario-options.ts';
import { EXIT, type Options, type Run } from '../verb.ts';

const SEEDS = 2000;
const MOST_WORKERS = 256;
/** Options that mean something in one mode only. */
const ONLY_SEEDS = ['seeds', 'firstSeed', 'workers', 'out'] as const;

export const run: Run = async ([name = ''], options, io) => {
  const policies = (options.policy ?? []) as readonly string[];
  if (policies.length > 1) throw new InputError('explore takes one --policy');
  const policy = policies[0] === undefined ? undefined : parsePolicy(policies[0]);
  if (options.exhaustive !== true) return seeds(name, options, policy, io);
  const wrong = ONLY_SEEDS.find((option) => options[option] !== undefined);
  if (wrong !== undefined)
    throw new InputError(`--exhaustive visits all orders: it takes no --${kebab(wrong)}`);
  return interleavings(name, options, policy, io);
};

async function seeds(name: string, options: Options, policy: PolicySet | undefined, io: Io): Promise<number> {
  if (options.depth !== undefined) throw new InputError('--depth is for --exhaustive');
  const progress = new Progress();
  const exploration = await exploreScenario(name, {
    seeds: whole(options, 'seeds', SEEDS, 1, 100_000_000),
    firstSeed: whole(options, 'firstSeed', 1, 0, Number.MAX_SAFE_INTEGER - 100_000_000),
    workers: whole(options, 'workers', availableParallelism(), 1, MOST_WORKERS),
    ...(policy === undefined ? {} : { policy }),
    onProgress: (played, all) => progress.show(played, all, 'seeds'),
  });
  progress.end();
  const { found } = exploration;
  const out = options.out === undefined ? null : String(options.out);
  const file = found && replayFile(scenarioText(name), found, out === null ? '.' : dirname(out), policy);
  if (out !== null && file !== null) write(out, file);
  if (options.json === true) io.out(toJson({ ...exploration, replay: file }));
  else printExploration(io, exploration, file, out);
  return found === null ? EXIT.done : EXIT.no;
}

async function interleavings(
  name: string,
  options: Options,
  policy: PolicySet | undefined,
  io: Io,
): Promise<number> {
  const scenario = await findScenario(name);
  const progress = new Progress();
  const depth = options.depth === undefined ? undefined : whole(options, 'depth', 0, 1, 1_000_000);
  const result = exploreInterleavings(scenario, {
    ...(policy === undefined ? {} : { policy }),
    ...(depth === undefined ? {} : { depth }),
    onProgress: (states, at) => progress.show(states, states, `states, ${formatCount(at)} steps deep`),
  });
  progress.end();
  if (options.json === true) io.out(toJson(result));
  else {
    io.out(style(io, 'bold', scenario.title));
    printSearch(io, result);
  }
  return result.broken === null ? EXIT.done : EXIT.no;
}

function whole(options: Options, name: string, otherwise: number, least: number, most: number): number {
  const text = options[name];
  if (text === undefined) return otherwise;
  const value = /^\d{1,16}$/.test(String(text)) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw new InputError(
    `--${kebab(name)} takes a whole number from ${least} to ${most}, not '${String(text)}'`,
  );
}

function kebab(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function write(file: string, text: string): void {
  try {
    writeFileSync(file, text);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new InputError(`--out: ${file} cannot be written (${code})`);
  }
}
