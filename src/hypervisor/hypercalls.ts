/** The host's hypercalls by function id. */
import { ERRNO } from '../abi/errno.ts';
import { HOST_CALL, X } from '../abi/pkvm.ts';
import type { LogicalProcessor } from '../machine/lp.ts';
import {
  forceReclaim,
  hostDonateGuest,
  hostRelaxPerms,
  hostShareGuest,
  hostSplitGuest,
  hostUnshareGuest,
  hostWrprotect,
  reclaimDying,
  revokeShared,
} from './guest-transitions.ts';
import type { Ownership } from './ownership.ts';
import { isInPoisonFault, runVcpu } from './run-vcpu.ts';
import type { HypVcpu, HypVm } from './vm.ts';
import { finalizeTeardown, initVcpu, initVm, refillMemcache, startTeardown } from './vm-life.ts';
import type { VmTable } from './vm-table.ts';

/** What hypercalls work on. @internal */
export interface HypState {
  readonly ownership: Ownership;
  readonly table: VmTable;
  /** The vCPU loaded on each logical processor, by index. */
  readonly loaded: Map<number, HypVcpu>;
}

/** x1 to x4, never negative. */
type Arguments = readonly [number, number, number, number];
type Handler = (state: HypState, args: Arguments, lp: LogicalProcessor) => number;

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [HOST_CALL.hostShareHyp, ({ ownership }, [pfn]) => ownership.hostShareHyp(pfn)],
  [HOST_CALL.hostUnshareHyp, ({ ownership }, [pfn]) => ownership.hostUnshareHyp(pfn)],
  [
    HOST_CALL.hostDonateGuest,
    withLoaded(true, ({ ownership }, vcpu, [pfn, gfn, pages]) => {
      return refillMemcache(ownership, vcpu) || hostDonateGuest(ownership, vcpu, pfn, gfn, pages);
    }),
  ],
  [
    HOST_CALL.hostShareGuest,
    withLoaded(false, ({ ownership }, vcpu, [pfn, gfn, pages, prot]) => {
      return refillMemcache(ownership, vcpu) || hostShareGuest(ownership, vcpu, pfn, gfn, pages, prot);
    }),
  ],
  [
    HOST_CALL.hostUnshareGuest,
    withVm(false, ({ ownership }, vm, [, gfn, pages]) => hostUnshareGuest(ownership, vm, gfn, pages)),
  ],
  [
    HOST_CALL.hostRelaxPermsGuest,
    withLoaded(null, (_, vcpu, [gfn, prot]) => hostRelaxPerms(vcpu, gfn, prot)),
  ],
  [HOST_CALL.hostWrprotectGuest, withVm(null, (_, vm, [, gfn, pages]) => hostWrprotect(vm, gfn, pages))],
  [
    HOST_CALL.hostSplitGuest,
    withLoaded(
      null,
      ({ ownership }, vcpu, [gfn]) => refillMemcache(ownership, vcpu) || hostSplitGuest(vcpu, gfn),
    ),
  ],
  [HOST_CALL.reserveVm, ({ table }) => table.reserve()],
  [HOST_CALL.unreserveVm, ({ table }, [handle]) => table.unreserve(handle)],
  [
    HOST_CALL.initVm,
    ({ ownership, table }, [host, state, root]) => initVm(ownership, table, host, state, root),
  ],
  [
    HOST_CALL.initVcpu,
    ({ ownership, table }, [handle, host, state]) => initVcpu(ownership, table, handle, host, state),
  ],
  [HOST_CALL.vcpuLoad, loadVcpu],
  [HOST_CALL.vcpuPut, putVcpu],
  [HOST_CALL.vcpuRun, withLoaded(null, ({ ownership }, vcpu, _, lp) => runVcpu(ownership, vcpu, lp))],
  [HOST_CALL.vcpuInPoisonFault, withLoaded(null, (_, vcpu) => isInPoisonFault(vcpu))],
  [HOST_CALL.startTeardownVm, ({ table }, [handle]) => startTeardown(table, handle)],
  [
    HOST_CALL.finalizeTeardownVm,
    ({ ownership, table }, [handle]) => finalizeTeardown(ownership, table, handle),
  ],
  [
    HOST_CALL.reclaimDyingGuestPage,
    withVm(true, ({ ownership }, vm, [, gfn, pages]) => {
      return vm.isDying ? reclaimDying(ownership, vm, gfn, pages) : -ERRNO.EINVAL;
    }),
  ],
  [
    HOST_CALL.forceReclaimGuestPage,
    ({ ownership, table }, [pfn, pages]) =>
      forceReclaim(ownership, (handle) => table.get(handle), pfn, pages),
  ],
  [
    HOST_CALL.revokeSharedGuestPage,
    withVm(true, ({ ownership }, vm, [, gfn]) => revokeShared(ownership, vm, gfn)),
  ],
]);

/** Runs the call in the registers of `lp`; undefined for a function that there is not. @internal */
export function handleHostCall(state: HypState, call: number, lp: LogicalProcessor): number | undefined {
  const handler = HANDLERS.get(call);
  if (handler === undefined) return undefined;
  const { q } = lp.regs;
  const args = [Number(q[X.x1]!), Number(q[X.x2]!), Number(q[X.x3]!), Number(q[X.x4]!)] as const;
  return handler(state, args, lp);
}

/** Needs a vCPU on this processor, of a protected VM or of another; null: either. */
function withLoaded(
  isProtected: boolean | null,
  handle: (state: HypState, vcpu: HypVcpu, args: Arguments, lp: LogicalProcessor) => number,
): Handler {
  return (state, args, lp) => {
    const vcpu = state.loaded.get(lp.index);
    if (vcpu === undefined) return -ERRNO.EINVAL;
    if (isProtected !== null && vcpu.vm.isProtected !== isProtected) return -ERRNO.EINVAL;
    return handle(state, vcpu, args, lp);
  };
}

/** Needs a VM whose handle is in x1, protected or not; null: either. */
function withVm(
  isProtected: boolean | null,
  handle: (state: HypState, vm: HypVm, args: Arguments) => number,
): Handler {
  return (state, args) => {
    const vm = state.table.get(args[0]);
    if (vm === undefined) return -ERRNO.ENOENT;
    return isProtected !== null && vm.isProtected !== isProtected ? -ERRNO.EINVAL : handle(state, vm, args);
  };
}

/** A processor has one vCPU at most, and a vCPU one processor. */
function loadVcpu({ table, loaded }: HypState, [handle, index]: Arguments, lp: LogicalProcessor): number {
  if (loaded.has(lp.index)) return -ERRNO.EBUSY;
  const vm = table.get(handle);
  const vcpu = vm?.vcpus[index];
  if (vm === undefined || vcpu === undefined) return -ERRNO.ENOENT;
  if (vm.isDying) return -ERRNO.EINVAL;
  if (vcpu.loadedOn !== null) return -ERRNO.EBUSY;
  vcpu.loadedOn = lp.index;
  loaded.set(lp.index, vcpu);
  return 0;
}

function putVcpu({ loaded }: HypState, _: Arguments, lp: LogicalProcessor): number {
  const vcpu = loaded.get(lp.index);
  if (vcpu === undefined) return -ERRNO.EINVAL;
  vcpu.loadedOn = null;
  loaded.delete(lp.index);
  return 0;
}
