/** A collection, read: every fact with the place it is from, or why it is not known. */
import { gunzipSync } from 'node:zlib';
import { InputError } from '../../abi/input-error.ts';
import { newEvidence } from '../evidence.ts';
import { takeAffinity } from '../srat-structures.ts';
import { readSratTable } from '../srat-table.ts';
import type { Collection } from './collection.ts';
import { type CpuFacts, parseCpuinfo, parseCpuList } from './cpu-facts.ts';
import type { Access } from './file-tree.ts';
import { LOG_SOURCE, type LogFacts, parseLog } from './log-facts.ts';
import { HOST_MSRS, MSR_DEVICE, type MsrName } from './msrs.ts';
import type { Probes } from './probes.ts';
import { ABSENT_FILE, type Missing, type Reading } from './reading.ts';

/** Something a machine may tell, and where it would. @public */
export type Fact<T> = Reading<T> & { readonly source: string };

const DAMAGED: Missing = { state: 'failed', why: 'it is not of the form it should have' };

/** @internal */
export class HostFacts {
  readonly platform: string;
  readonly cpu: Fact<CpuFacts>;
  /** Options on the kernel's command line that concern TDX. */
  readonly options: Fact<readonly string[]>;
  readonly log: Fact<LogFacts>;
  /** Options of the kernel's configuration: `y`, `m`, or `n` for one that is not set. */
  readonly config: Fact<ReadonlyMap<string, string>>;
  /** APIC ids of the processors that the firmware lists. */
  readonly listedCpus: Fact<readonly number[]>;
  readonly probes: Probes;
  readonly #collection: Collection;

  constructor(collection: Collection) {
    const { platform, log, probes } = collection;
    this.#collection = collection;
    this.platform = platform;
    this.probes = probes;
    this.cpu = this.parsed('/proc/cpuinfo', parseCpuinfo);
    this.options = this.parsed('/proc/cmdline', (text) => text.split(/\s+/).filter((word) => word !== ''));
    this.log =
      log.state === 'read'
        ? { state: 'read', value: parseLog(log.value), source: LOG_SOURCE }
        : { ...log, source: LOG_SOURCE };
    this.config = this.#readConfig();
    this.listedCpus = this.#readSrat();
  }

  /** The bytes kept of a file. */
  bytes(path: string): Fact<Uint8Array> {
    const { files, missing } = this.#collection;
    const value = files.get(path);
    if (value !== undefined) return { state: 'read', value, source: path };
    return { ...(missing.get(path) ?? ABSENT_FILE), source: path };
  }

  /** What is in a text file, without white space at its ends. */
  text(path: string): Fact<string> {
    return this.parsed(path, (text) => text.trim());
  }

  /** What `parse` makes of a text file; it returns undefined for a text of another form. */
  parsed<T>(path: string, parse: (text: string) => T | undefined): Fact<T> {
    const reading = this.bytes(path);
    if (reading.state !== 'read') return reading;
    const value = parse(new TextDecoder().decode(reading.value));
    return value === undefined ? { ...DAMAGED, source: path } : { state: 'read', value, source: path };
  }

  /** The first of the files that is there, otherwise why the first is not. */
  firstText(paths: readonly string[]): Fact<string> {
    const texts = paths.map((path) => this.text(path));
    return texts.find(({ state }) => state === 'read') ?? texts[0]!;
  }

  cpuList(path: string): Fact<readonly number[]> {
    return this.parsed(path, parseCpuList);
  }

  /** Paths of the files kept whose names begin so. */
  paths(start: string): readonly string[] {
    return [...this.#collection.files.keys()].filter((path) => path.startsWith(start));
  }

  msr(name: MsrName): Fact<bigint> {
    const reading = this.#collection.msrs.get(name) ?? ABSENT_FILE;
    return { ...reading, source: `${MSR_DEVICE} ${name} (0x${HOST_MSRS[name].toString(16)})` };
  }

  access(path: string): Access {
    return this.#collection.presences.get(path) ?? 'none';
  }

  /** Of the places looked at, those where there is something. */
  present(paths: readonly string[]): readonly string[] {
    return paths.filter((path) => this.access(path) !== 'none');
  }

  #readConfig(): Fact<ReadonlyMap<string, string>> {
    const { files, missing } = this.#collection;
    const isConfig = (path: string): boolean =>
      /^\/(?:proc\/config\.gz$|boot\/config-|lib\/modules\/)/.test(path);
    const source = [...files.keys()].find(isConfig);
    if (source === undefined) {
      const tried = [...missing].filter(([path]) => isConfig(path));
      const [path, why] = tried.find(([, { state }]) => state !== 'absent') ?? tried[0] ?? ['', ABSENT_FILE];
      return { ...why, source: path || '/proc/config.gz' };
    }
    try {
      const bytes = files.get(source)!;
      const text = new TextDecoder().decode(source.endsWith('.gz') ? gunzipSync(bytes) : bytes);
      return { state: 'read', value: parseConfig(text), source };
    } catch {
      return { ...DAMAGED, source };
    }
  }

  #readSrat(): Fact<readonly number[]> {
    const table = this.bytes('/sys/firmware/acpi/tables/SRAT');
    if (table.state !== 'read') return table;
    const { source } = table;
    try {
      const evidence = newEvidence(source);
      takeAffinity(evidence, readSratTable(table.value, { source }));
      return { state: 'read', value: evidence.processors.map(({ apicId }) => apicId), source };
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      return { state: 'failed', why: error.message, source };
    }
  }
}

function parseConfig(text: string): ReadonlyMap<string, string> {
  return new Map(
    text.split('\n').flatMap((line): [string, string][] => {
      const [, set, value] = /^CONFIG_(\w+)=(.*)$/.exec(line) ?? [];
      if (set !== undefined) return [[set, value!]];
      const unset = /^# CONFIG_(\w+) is not set/.exec(line)?.[1];
      return unset === undefined ? [] : [[unset, 'n']];
    }),
  );
}
