/** What guests reach: read from the tables that the hardware walks, and from TLBs as far as they are modelled. */
import { PAGE_4K, pfnOf } from '../../abi/address.ts';
import { OP_STATE } from '../../abi/op-states.ts';
import { PAGE_STATE } from '../../hypervisor/page-state.ts';
import { PkvmHypervisor } from '../../hypervisor/pkvm-hypervisor.ts';
import { PkvmBackend } from '../../kvm/backends/pkvm/pkvm-backend.ts';
import { SnpBackend } from '../../kvm/backends/snp/snp-backend.ts';
import { SoftwareBackend } from '../../kvm/backends/software/software-backend.ts';
import { TdxBackend } from '../../kvm/backends/tdx/tdx-backend.ts';
import type { Vcpu } from '../../kvm/vcpu.ts';
import type { Vm } from '../../kvm/vm.ts';
import { TDCS } from '../../module/td/layout.ts';
import { TrustDomain } from '../../module/td/trust-domain.ts';
import { TdxModule } from '../../module/tdx-module.ts';
import { readSept } from '../invariants/sept-view.ts';

/** Guest frames and the page frames behind them. @public */
export interface GuestMapping {
  readonly gfn: number;
  readonly pfn: number;
  /** 4 KiB pages. */
  readonly pages: number;
  readonly isPrivate: boolean;
  /** The vCPU whose TLB has it; null for a mapping in tables. */
  readonly cachedBy: Vcpu | null;
}

/** Everything that the guest of `vm` reaches. Changes nothing. @public */
export function mappingsOf(vm: Vm): readonly GuestMapping[] {
  // A VM whose creation has not come so far has no backend.
  const backend = vm.backend as Vm['backend'] | undefined;
  if (backend instanceof TdxBackend) return [...secureMappings(vm, backend), ...sharedMappings(backend)];
  if (backend instanceof SnpBackend) return nestedMappings(backend);
  if (backend instanceof PkvmBackend) return stage2Mappings(vm, backend);
  if (backend instanceof SoftwareBackend) return [...softwareMappings(backend)];
  return [];
}

/** Pages that the secure EPT has, accepted or not, blocked or not: the guest's until they are removed. */
function* secureMappings({ kernel }: Vm, { td }: TdxBackend): Generator<GuestMapping> {
  const { module } = kernel.machine.seam;
  if (!(module instanceof TdxModule) || td.tdr === 0 || !td.hasKeyId || td.state === 'uninitialized') return;
  const real = new TrustDomain(module, td.tdr);
  if (real.tdcs.u32(TDCS.OP_STATE) === OP_STATE.UNINITIALIZED) return;
  const root = pfnOf(Number(real.eptpWithoutKeyId(0)));
  for (const { key, level, leaf, page } of readSept(kernel.machine.memory, real.sept(0), root, 0).entries) {
    if (!leaf) continue;
    yield { gfn: pfnOf(key), pfn: pfnOf(page), pages: 512 ** level, isPrivate: true, cachedBy: null };
  }
}

function* sharedMappings(backend: TdxBackend): Generator<GuestMapping> {
  for (const leaf of backend.sharedLeaves()) yield { ...leaf, isPrivate: false, cachedBy: null };
}

function nestedMappings({ guest }: SnpBackend): GuestMapping[] {
  return [...guest.nested.leaves()].map(({ gfn, pfn, pages, isPrivate }) => ({
    gfn,
    pfn,
    pages,
    isPrivate,
    cachedBy: null,
  }));
}

function stage2Mappings({ kernel }: Vm, { pkvm }: PkvmBackend): GuestMapping[] {
  const { hypervisor } = kernel.machine;
  if (!(hypervisor instanceof PkvmHypervisor)) return [];
  const leaves = hypervisor.table.get(pkvm.handle)?.stage2.leaves() ?? [];
  return [...leaves].map(({ gfn, pfn, pages, state }) => ({
    gfn,
    pfn,
    pages,
    isPrivate: state === PAGE_STATE.OWNED,
    cachedBy: null,
  }));
}

function* softwareMappings({ stage, contexts }: SoftwareBackend): Generator<GuestMapping> {
  const isPrivateAt = new Map<number, boolean>();
  for (const { gfn, pfn, level, isPrivate } of stage.all()) {
    for (let i = 0; i < 512 ** level; i++) isPrivateAt.set(pfn + i, isPrivate);
    yield { gfn, pfn, pages: 512 ** level, isPrivate, cachedBy: null };
  }
  for (const [vcpu, context] of contexts) {
    // What is to be flushed before the next entry reaches nothing.
    if (vcpu.requests.has('tlb-flush')) continue;
    for (const { gfn, pfn } of context.cached()) {
      yield { gfn, pfn, pages: 1, isPrivate: isPrivateAt.get(pfn) ?? false, cachedBy: vcpu };
    }
  }
}

/** `guest frame 0x40000 (page 0x1234)`. @internal */
export function describeMapping({ gfn, pfn, cachedBy }: GuestMapping): string {
  const tlb = cachedBy === null ? '' : `, cached by vCPU ${cachedBy.id}`;
  return `guest frame 0x${gfn.toString(16)} (page at 0x${(pfn * PAGE_4K).toString(16)}${tlb})`;
}
