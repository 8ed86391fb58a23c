/** Builds a TD from a TDVF image, in the order that KVM wants (Linux host rules 2.2, 2.3). */
import { PAGE_4K } from '../../abi/address.ts';
import { InputError } from '../../abi/input-error.ts';
import { KVM_HC_MAP_GPA_RANGE } from '../../abi/kvm/exits.ts';
import { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } from '../../abi/kvm/structs.ts';
import { KVM_VM_TYPE } from '../../abi/kvm/vm-types.ts';
import type { SystemCalls } from '../../kernel/process/system-calls.ts';
import { buildTdHob } from '../td-hob.ts';
import { layOutTd, type TdLayout, type TdRegion, type VmmContents } from '../td-layout.ts';
import { checkImage } from '../tdvf/check-image.ts';
import type { TdvfImage } from '../tdvf/image.ts';
import { isAdded, sectionRule, sectionsOf } from '../tdvf/section.ts';
import { type CpuidEntry, setCpuid, supportedCpuid } from './cpuid.ts';
import { doing } from './doing.ts';
import { addMemory, setPrivate } from './guest-memory.ts';
import { addVcpu } from './guest-vcpu.ts';
import { GuestVm } from './guest-vm.ts';
import { DEFAULT_MEMORY_BYTES, type GuestRange, layOutMemory } from './memory-layout.ts';
import { initMemRegion, initTd, tdCapabilities, tdxCommand } from './td-commands.ts';
import { fillMemory, mapAnonymous } from './user-memory.ts';

/** @public */
export interface TdOptions {
  /** Guest memory in bytes, firmware not counted. Default 128 MiB. */
  readonly memoryBytes?: number;
  readonly vcpus?: number;
  /** Attributes beyond SEPT_VE_DISABLE. */
  readonly attributes?: bigint;
  /** MRCONFIGID, MROWNER, MROWNERCONFIG as six 64-bit words each; default zero. */
  readonly mrconfigid?: bigint[];
  readonly mrowner?: bigint[];
  readonly mrownerconfig?: bigint[];
  readonly contents?: Omit<VmmContents, 'hob'>;
}

/** A TD whose measurement is final. @public */
export interface BuiltTd {
  readonly vm: GuestVm;
  readonly layout: TdLayout;
  readonly memory: readonly GuestRange[];
}

/** Faults on memory that the guest has not accepted go to the host instead of the guest. */
const SEPT_VE_DISABLE = 1n << 28n;
/** Leaf whose EAX[23:16] takes the guest physical address width, and the width with four levels. */
const ADDRESS_SIZES_LEAF = 0x8000_0008;
const WIDTH_SHIFT = 16;
const WIDTH = 48;

/**
 * Creates, fills, measures and finalises. Throws InputError for an image no TD can be made of, KernelError saying what was
 * being done; what was taken until then is given back.
 * @public
 */
export async function buildTd(
  calls: SystemCalls,
  image: TdvfImage,
  options: TdOptions = {},
): Promise<BuiltTd> {
  const fatal = checkImage(image).find((finding) => finding.fatal);
  if (fatal !== undefined) throw new InputError(`${image.name}: no TD can be made of it: ${fatal.text}`);
  const memory = layOutMemory(options.memoryBytes ?? DEFAULT_MEMORY_BYTES, firmwareStart(image));
  const layout = layOutTd(image, { ...options.contents, ...hobOf(image, memory) });
  const vm = await GuestVm.build(calls, KVM_VM_TYPE.TDX, async (td) => {
    await td.enable('EXIT_HYPERCALL', 1n << BigInt(KVM_HC_MAP_GPA_RANGE));
    await td.enable('SPLIT_IRQCHIP', 24n);
    const supported = await supportedCpuid(td);
    await initialise(td, supported, options);
    for (const range of memory) {
      await addMemory(td, range, 'split');
      await setPrivate(td, range, true);
    }
    for (let i = 0; i < (options.vcpus ?? 1); i++) {
      const vcpu = await addVcpu(td);
      await setCpuid(td, vcpu, supported);
      await tdxCommand(calls, vcpu.fd, 'INIT_VCPU', layout.hobAddress ?? 0);
    }
    for (const region of layout.regions) await addRegion(td, region);
    await tdxCommand(calls, td.fd, 'FINALIZE_VM', 0);
  });
  return { vm, layout, memory };
}

/** The lowest address of what the image puts below 4 GiB by itself; null for images that lie in RAM. */
function firmwareStart({ sections }: TdvfImage): number | null {
  const files = sections.filter((section) => isAdded(section) && sectionRule(section)?.source === 'file');
  const high = files.map(({ address }) => address).filter((address) => address >= 0xb000_0000);
  return high.length === 0 ? null : Math.min(...high);
}

/** The list tells of RAM only. */
function hobOf(image: TdvfImage, memory: readonly GuestRange[]): Pick<VmmContents, 'hob'> {
  if (sectionsOf(image.sections, 'TD_HOB').length === 0) return {};
  const ram = memory.filter(({ name }) => name !== 'firmware');
  return { hob: buildTdHob(image, ram) };
}

async function initialise(td: GuestVm, supported: readonly CpuidEntry[], options: TdOptions): Promise<void> {
  const { calls, fd } = td;
  const { attributes = 0n, mrconfigid = [], mrowner = [], mrownerconfig = [] } = options;
  const capabilities = await tdCapabilities(calls, fd);
  const values = { mrconfigid, mrowner, mrownerconfig, xfam: capabilities.xfam };
  const wanted = attributes | (SEPT_VE_DISABLE & capabilities.attributes);
  await initTd(calls, fd, { ...values, attributes: wanted }, tdCpuidConfig(capabilities.cpuid, supported));
}

/** Of every configurable leaf what KVM supports of its bits. */
function tdCpuidConfig(configurable: readonly CpuidEntry[], supported: readonly CpuidEntry[]): CpuidEntry[] {
  return configurable.map((mask) => {
    const hasSubleaves = configurable.some((other) => other !== mask && other.function === mask.function);
    const found = supported.find((entry) => entry.function === mask.function && entry.index === mask.index);
    const bits = (name: 'eax' | 'ebx' | 'ecx' | 'edx'): number => ((found?.[name] ?? 0) & mask[name]) >>> 0;
    const entry = { ...mask, eax: bits('eax'), ebx: bits('ebx'), ecx: bits('ecx'), edx: bits('edx') };
    if (hasSubleaves || mask.index !== 0) entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    if (mask.function === ADDRESS_SIZES_LEAF) {
      entry.eax = ((entry.eax & ~(0xff << WIDTH_SHIFT)) | (WIDTH << WIDTH_SHIFT)) >>> 0;
    }
    return entry;
  });
}

async function addRegion(
  { calls, vcpus }: GuestVm,
  { gpa, pages, source, measure }: TdRegion,
): Promise<void> {
  const length = pages * PAGE_4K;
  const address = await mapAnonymous(calls, length);
  try {
    await doing('filling memory for the guest', () => fillMemory(calls, address, source));
    await initMemRegion(calls, vcpus[0]!.fd, { gpa, pages, source: address, measure });
  } finally {
    await calls.munmap(address, length);
  }
}
