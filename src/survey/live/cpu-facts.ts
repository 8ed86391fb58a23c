/** What /proc/cpuinfo and the lists of CPUs say. */
import type { CpuModel } from '../../machine/description.ts';
import { cpuModelOf } from '../cpu-models.ts';

/** One logical processor that is online. @public */
export interface OnlineCpu {
  readonly cpu: number;
  readonly package: number;
  readonly apicId?: number;
}

/** @public */
export interface CpuFacts {
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly modelName: string;
  /** Undefined for a processor without TDX, or one not known here. */
  readonly tdxModel?: CpuModel;
  readonly flags: ReadonlySet<string>;
  readonly bugs: ReadonlySet<string>;
  readonly online: readonly OnlineCpu[];
}

/** Undefined when the text is not /proc/cpuinfo of an x86 machine. @internal */
export function parseCpuinfo(text: string): CpuFacts | undefined {
  const first = fieldsOf(text.split(/\n\s*\n/, 1)[0] ?? '');
  const vendor = first.get('vendor_id');
  if (vendor === undefined) return undefined;
  const words = (name: string): ReadonlySet<string> => new Set((first.get(name) ?? '').split(/\s+/));
  const family = Number(first.get('cpu family'));
  const model = Number(first.get('model'));
  const tdxModel = vendor === 'GenuineIntel' ? cpuModelOf(family, model) : undefined;
  return {
    vendor,
    family,
    model,
    modelName: first.get('model name') ?? '',
    ...(tdxModel === undefined ? {} : { tdxModel }),
    flags: words('flags'),
    bugs: words('bugs'),
    online: text.split(/\n\s*\n/).flatMap((block) => onlineCpu(fieldsOf(block))),
  };
}

function fieldsOf(block: string): Map<string, string> {
  return new Map(
    block.split('\n').flatMap((line): [string, string][] => {
      const colon = line.indexOf(':');
      return colon < 0 ? [] : [[line.slice(0, colon).trim(), line.slice(colon + 1).trim()]];
    }),
  );
}

function onlineCpu(fields: ReadonlyMap<string, string>): OnlineCpu[] {
  const number = (name: string): number | undefined => {
    const text = fields.get(name) ?? '';
    return /^\d{1,9}$/.test(text) ? Number(text) : undefined;
  };
  const [cpu, apicId] = [number('processor'), number('apicid')];
  if (cpu === undefined) return [];
  return [{ cpu, package: number('physical id') ?? 0, ...(apicId === undefined ? {} : { apicId }) }];
}

/** More CPUs than any kernel is built for. */
const MAX_CPU = 65_536;

/** Numbers in a list such as `0-3,8`; undefined for what is none. @internal */
export function parseCpuList(text: string): readonly number[] | undefined {
  const numbers = new Set<number>();
  if (text.trim() === '') return [];
  for (const part of text.trim().split(',')) {
    const [, first, last] = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(part) ?? [];
    if (first === undefined) return undefined;
    const [from, to] = [Number(first), Number(last ?? first)];
    if (to >= MAX_CPU || from > to) return undefined;
    for (let cpu = from; cpu <= to; cpu++) numbers.add(cpu);
  }
  return [...numbers];
}

/** Low bits of an APIC id that are not the package's: at least 7 on machines with TDX, and an id has 32. */
const SHIFTS = Array.from({ length: 25 }, (_, i) => i + 7);

/**
 * Packages that the firmware lists processors of and in which none is online, by the processors' APIC ids: Linux calls
 * a package by the upper part of them. Where the ids of online processors fit several widths of that part, `packages`,
 * the number of packages, decides; undefined when nothing does.
 * @internal
 */
export function packagesWithoutCpu(
  online: readonly OnlineCpu[],
  listed: readonly number[],
  packages?: number,
): readonly number[] | undefined {
  if (online.length === 0 || online.some(({ apicId }) => apicId === undefined)) return undefined;
  const packageOf = (id: number, shift: number): number => Math.floor(id / 2 ** shift);
  const fitting = SHIFTS.filter((shift) =>
    online.every((cpu) => packageOf(cpu.apicId!, shift) === cpu.package),
  );
  const up = new Set(online.map((cpu) => cpu.package));
  const outcomes = fitting.map((shift) => new Set(listed.map((id) => packageOf(id, shift))));
  const without = (all: ReadonlySet<number>): readonly number[] => [...all].filter((id) => !up.has(id));
  const counted = outcomes.find((all) => all.size === packages);
  if (counted !== undefined) return without(counted);
  return outcomes.length > 0 && outcomes.every((all) => without(all).length === 0) ? [] : undefined;
}
