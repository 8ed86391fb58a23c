/** A look at a host between two turns: who reaches which page. Nothing is kept beyond it. */
import type { HostKernel } from '../../kernel/host-kernel.ts';
import type { Process } from '../../kernel/process/process.ts';
import type { BackendName } from '../../kvm/backend.ts';
import { TdxBackend } from '../../kvm/backends/tdx/tdx-backend.ts';
import type { Vm } from '../../kvm/vm.ts';
import { type GuestMapping, mappingsOf } from './guest-mappings.ts';

/** Technologies whose machine keeps private memory from the kernel too. */
const HIDING: ReadonlySet<BackendName> = new Set(['tdx', 'snp', 'pkvm']);

/** @public */
export interface VmLook {
  readonly vm: Vm;
  readonly mappings: readonly GuestMapping[];
  /** Private memory is kept from the kernel, too. */
  readonly hides: boolean;
}

/** A page that user space maps. @public */
export interface UserPage {
  readonly process: Process;
  readonly vpn: number;
  readonly pfn: number;
}

/** @public */
export interface HostLook {
  readonly kernel: HostKernel;
  readonly vms: readonly VmLook[];
  readonly userPages: readonly UserPage[];
  /** Pages that a guest had for itself at one time under a technology that hides them. */
  readonly onceHidden: ReadonlySet<number>;
  /** Bytes that guests write to private memory and nobody else writes anywhere. */
  readonly secret: Uint8Array;
}

/** Who is looked at. @public */
export interface Watched {
  readonly kernel: HostKernel;
  readonly vms: readonly Vm[];
  readonly processes: readonly Process[];
  readonly secret: Uint8Array;
}

/** Looks at all of it. VMs that nobody refers to any more run no guest. `onceHidden` grows by what is seen. @public */
export function lookAt(watched: Watched, onceHidden: Set<number> = new Set()): HostLook {
  const { kernel, secret } = watched;
  const vms = watched.vms
    .filter(({ references }) => references > 0)
    .map((vm) => ({ vm, mappings: mappingsOf(vm), hides: HIDING.has(vm.backend?.name) }));
  for (const { mappings, hides } of vms) {
    for (const page of hides ? privatePages(mappings) : []) onceHidden.add(page);
  }
  const userPages = watched.processes.flatMap((process) =>
    [...process.memory.entries()].map(({ vpn, pfn }) => ({ process, vpn, pfn })),
  );
  return { kernel, vms, userPages, onceHidden, secret };
}

/** Page frames of private mappings, one by one. @internal */
export function* privatePages(mappings: readonly GuestMapping[]): Generator<number> {
  for (const { pfn, pages, isPrivate } of mappings) {
    if (isPrivate) for (let i = 0; i < pages; i++) yield pfn + i;
  }
}

/** True while somebody changes the mappings of [gfn, gfn + pages): what is seen then is on its way. @internal */
export function isChanging({ vm }: VmLook, { gfn, pages }: GuestMapping): boolean {
  const { invalidations, slots } = vm;
  if (invalidations.isUnderWay(gfn, gfn + pages)) return true;
  const slot = slots.find(gfn);
  return slot !== undefined && slots.isInvalid(slot);
}

/** True while KVM works on its tables, which do not say what the hardware's do meanwhile. @internal */
export function isAtWork({ vm }: VmLook): boolean {
  const isBlocked = vm.backend instanceof TdxBackend && vm.backend.td.waitsForZap;
  return isBlocked || vm.mmuLock.isHeld;
}
