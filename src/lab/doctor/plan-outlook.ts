/** What `plan` makes of the memory map that a machine's sources show. */
import { formatBytes } from '../../abi/format-bytes.ts';
import { InputError } from '../../abi/input-error.ts';
import { showsMemory } from '../../survey/evidence.ts';
import type { HostFacts } from '../../survey/live/host-facts.ts';
import { readHost, type Source } from '../../survey/read-host.ts';
import type { Remedy } from '../plan/plan.ts';
import { planHost } from '../plan/plan-host.ts';
import { valueIn } from './finding.ts';

/** @public */
export interface PlanOutlook {
  /** Whether TDX would initialise with this memory; null where the sources do not make a machine. */
  readonly ok: boolean | null;
  /** In one sentence. */
  readonly says: string;
  readonly remedies: readonly Remedy[];
  /** What it was made from, by the paths in a collection: operands for `tdxlab plan`. */
  readonly sources: readonly string[];
}

/** The log and tables by their paths in a collection. */
const LOG = 'kernel.log';
const TABLES = ['/proc/iomem', '/sys/firmware/acpi/tables/SRAT'];

/** Undefined where no source shows memory. @internal */
export async function planOutlook(facts: HostFacts): Promise<PlanOutlook | undefined> {
  const sources = sourcesOf(facts);
  if (sources.length === 0) return undefined;
  const names = sources.map(({ name }) => name);
  try {
    const survey = await readHost(sources);
    const { verdict, pamt, tds, remedies } = planHost(survey, { holes: 'memblock', dynamicPamt: false });
    // A survey assumes KeyIDs where none are shown, and assumed ones are not for telling.
    const count = survey.observed.keyIds === undefined ? '' : `, ${tds.max} TDs at once`;
    const says = verdict.ok
      ? `With this memory TDX initialises: ${formatBytes(pamt.totalBytes)} for PAMT${count}.`
      : `With this memory TDX does not initialise: ${verdict.reason}.`;
    return { ok: verdict.ok, says, remedies, sources: names };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { ok: null, says: `No plan can be made: ${error.message}.`, remedies: [], sources: names };
  }
}

function sourcesOf(facts: HostFacts): readonly Source[] {
  const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
  const log = valueIn(facts.log);
  const tables = TABLES.flatMap((path): Source[] => {
    const bytes = valueIn(facts.bytes(path));
    return bytes === undefined || isHidden(bytes) ? [] : [{ name: path.slice(1), bytes }];
  });
  // A log that has lost its start shows no memory map; /proc/iomem then stands for it.
  if (log === undefined || !showsMemory(log.evidence)) return tables;
  return [{ name: LOG, bytes: encode(log.lines.join('\n')) }, ...tables];
}

/** /proc/iomem as those see it who are not root: every address is zero. */
function isHidden(bytes: Uint8Array): boolean {
  const text = new TextDecoder().decode(bytes);
  return text === '' || /^0+-0+ : /.test(text);
}
