/**
 * The cheap comparison: only what a call names in its registers. It tells at once that a call did to its operands what
 * it should, or, refused, nothing.
 */
import { hex, PAGE_4K } from '../../abi/address.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { RCX, RDX } from '../../abi/registers.ts';
import { SEPT_STATE, septState } from '../../module/td/sept-entry.ts';
import { TrustDomain } from '../../module/td/trust-domain.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import { type AbstractState, type AbstractTd, pageHolding } from './abstract-state.ts';
import { stateName } from './compare.ts';
import { compareTd } from './compare-td.ts';
import { type Difference, Differences } from './differences.ts';
import { gpaKey } from './host-call.ts';

const ADDRESS_MASK = 0xf_ffff_ffff_f000n;
/** Registers that hold addresses: RCX, RDX, R8 to R13. */
const ADDRESS_REGISTERS = [RCX, RDX, 8, 9, 10, 11, 12, 13] as const;

/** Differences in the pages, TDs and the guest address that the registers `q` name. @public */
export function compareNamed(
  state: AbstractState,
  module: TdxModule,
  q: BigUint64Array,
): readonly Difference[] {
  const found = new Differences();
  for (const effect of state.effects) {
    if (effect.kind === 'returned') comparePage(state, module, effect.address, found);
  }
  for (const register of ADDRESS_REGISTERS) {
    const address = Number(q[register]! & ADDRESS_MASK);
    comparePage(state, module, address, found);
    const td = state.tds.get(address) ?? state.tds.get(state.pages.get(address)?.owner ?? -1);
    if (td === undefined || !state.pages.has(td.tdr)) continue;
    const real = new TrustDomain(module, td.tdr);
    compareTd(state.platform, td, real, found);
    if (register === RDX && td.tdr === address) compareEntry(td, real, q[RCX]!, found);
  }
  return found.list;
}

function comparePage(state: AbstractState, { pamt }: TdxModule, address: number, found: Differences): void {
  const page = pageHolding(state, address)?.page;
  const block = pamt.block(address);
  if (block === undefined) return;
  const { type, owner } = block.entry(address, page?.level ?? 0);
  if (page === undefined) {
    if (type !== PAGE_TYPE.RSVD) found.check(`page ${hex(address)}`, 'type', PAGE_TYPE.NDA, type);
    return;
  }
  found.check(`page ${hex(address)}`, 'type', page.type, type);
  if (page.owner !== 0) found.check(`page ${hex(address)}`, 'owner', page.owner, owner);
}

function compareEntry(td: AbstractTd, real: TrustDomain, rcx: bigint, found: Differences): void {
  const { gpa, level, key } = gpaKey(rcx);
  if (td.lifeCycle !== 'KEYS_CONFIGURED' || td.opState === 'UNINITIALIZED' || gpa >= 2 ** 47) return;
  const ept = real.sept();
  if (level > ept.rootLevel || gpa % (PAGE_4K * 512 ** level) !== 0) return;
  const position = ept.walk(gpa, level);
  const where = `TD ${hex(td.tdr)} GPA ${hex(key)}`;
  const entry = td.sept.get(key);
  if (position.level !== level) return;
  const code = septState(position.entry);
  if (code === SEPT_STATE[entry?.state ?? 'FREE']) return;
  found.check(where, 'state', entry?.state ?? 'FREE', stateName(code));
}
