/** Page state changes by a list in the GHCB's shared buffer: neighbouring entries go to user space as one range. */
import { PAGE_4K } from '../../../abi/address.ts';
import {
  decodePscEntry,
  encodePscEntry,
  GHCB_ERROR,
  GHCB_RESPONSE,
  PSC_ERROR,
  PSC_HEADER,
  PSC_MAX_ENTRIES,
  PSC_OPERATION,
  type PscEntry,
} from '../../../abi/ghcb.ts';
import { KVM_HC_MAP_GPA_RANGE, KVM_MAP_GPA_RANGE, KVM_RUN_EXIT } from '../../../abi/kvm/exits.ts';
import { PAGES_PER_2M } from '../../../machine/snp/rmp.ts';
import { exitsOnHypercall } from '../../hypercall.ts';
import type { VcpuExit } from '../../vcpu-exit.ts';
import type { Vm } from '../../vm.ts';
import type { GhcbPage } from './ghcb-page.ts';
import { HANDLED } from './snp-guest.ts';

/** @internal */
export function changePageStates(vm: Vm, ghcb: GhcbPage): VcpuExit {
  const buffer = ghcb.scratch(Number(ghcb.get('sw_exit_info_2') ?? 0n));
  if (buffer === null || buffer.length < PSC_HEADER.bytes) {
    ghcb.respond(GHCB_RESPONSE.MALFORMED_INPUT, GHCB_ERROR.INVALID_SCRATCH_AREA);
    return HANDLED;
  }
  return nextRange(vm, ghcb, new PscList(buffer));
}

/** The list of the request; the guest sees how far it is. */
class PscList {
  readonly #view: DataView;

  constructor(buffer: Uint8Array) {
    this.#view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }

  get current(): number {
    return this.#view.getUint16(PSC_HEADER.offsets.cur_entry, true);
  }

  set current(index: number) {
    this.#view.setUint16(PSC_HEADER.offsets.cur_entry, index, true);
  }

  get last(): number {
    return this.#view.getUint16(PSC_HEADER.offsets.end_entry, true);
  }

  /** True when entries up to `index` lie in the buffer. */
  holds(index: number): boolean {
    return index < PSC_MAX_ENTRIES && this.#offset(index + 1) <= this.#view.byteLength;
  }

  at(index: number): PscEntry {
    return decodePscEntry(this.#view.getBigUint64(this.#offset(index), true));
  }

  /** Notes that all pages of the entry are done. */
  finish(index: number): void {
    const entry = this.at(index);
    this.#view.setBigUint64(
      this.#offset(index),
      encodePscEntry({ ...entry, currentPage: pagesOf(entry) }),
      true,
    );
  }

  #offset(index: number): number {
    return PSC_HEADER.bytes + index * 8;
  }
}

function pagesOf({ isLarge }: PscEntry): number {
  return isLarge ? PAGES_PER_2M : 1;
}

function nextRange(vm: Vm, ghcb: GhcbPage, list: PscList): VcpuExit {
  const finish = (result: bigint): VcpuExit => {
    ghcb.respond(GHCB_RESPONSE.NO_ACTION, result);
    return HANDLED;
  };
  if (!exitsOnHypercall(vm, KVM_HC_MAP_GPA_RANGE)) return finish(PSC_ERROR.GENERIC);
  if (!list.holds(list.last)) return finish(PSC_ERROR.INVALID_HEADER);
  for (; list.current <= list.last; list.current++) {
    const entry = list.at(list.current);
    const pages = pagesOf(entry);
    if (entry.currentPage > pages || entry.gfn % pages !== 0) return finish(PSC_ERROR.INVALID_ENTRY);
    if (entry.currentPage === pages) continue;
    const isKnown = entry.operation === PSC_OPERATION.PRIVATE || entry.operation === PSC_OPERATION.SHARED;
    if (isKnown) return askUser(vm, ghcb, list, finish);
    // SMASH and UNSMASH are hints.
    list.finish(list.current);
  }
  return finish(0n);
}

/** The entry that is due with the neighbours that go on from it. A 2 MiB entry done in part goes on by 4 KiB, alone. */
function askUser(vm: Vm, ghcb: GhcbPage, list: PscList, finish: (result: bigint) => VcpuExit): VcpuExit {
  const first = list.at(list.current);
  const isLarge = first.isLarge && first.currentPage === 0;
  const gfn = first.gfn + first.currentPage;
  let pages = pagesOf(first) - first.currentPage;
  let end = list.current + 1;
  for (; end <= list.last; end++) {
    const entry = list.at(end);
    const goesOn =
      entry.operation === first.operation && entry.gfn === gfn + pages && entry.currentPage === 0;
    if (!goesOn || entry.isLarge !== isLarge) break;
    pages += pagesOf(entry);
  }
  const isPrivate = first.operation === PSC_OPERATION.PRIVATE;
  return {
    kind: 'hypercall',
    nr: KVM_HC_MAP_GPA_RANGE,
    args: [
      BigInt(gfn * PAGE_4K),
      BigInt(pages),
      (isPrivate ? KVM_MAP_GPA_RANGE.ENC_STAT : 0n) |
        (first.isLarge ? KVM_MAP_GPA_RANGE.PAGE_SZ_2M : KVM_MAP_GPA_RANGE.PAGE_SZ_4K),
    ],
    isLongMode: true,
    complete: (union) => {
      if (KVM_RUN_EXIT.HYPERCALL.decode(union).ret !== 0n) return finish(PSC_ERROR.GENERIC);
      for (; list.current < end; list.current++) list.finish(list.current);
      return nextRange(vm, ghcb, list);
    },
  };
}
