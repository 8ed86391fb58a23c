/** TDH.MNG.CREATE: makes a TD of a free page and a free private KeyID (module facts 5). */
import { PAGE_4K } from '../../abi/address.ts';
import { OPERAND } from '../../abi/operands.ts';
import { PAGE_TYPE } from '../../abi/page-types.ts';
import { RCX, RDX } from '../../abi/registers.ts';
import { withOperand } from '../../abi/status.ts';
import { STATUS } from '../../abi/status-codes.ts';
import type { LogicalProcessor } from '../../machine/lp.ts';
import { HKID_STATE } from '../kot.ts';
import type { Leaf } from '../leaf.ts';
import { type Held, locking } from '../td/held.ts';
import { LIFECYCLE, TDR } from '../td/layout.ts';
import { givePage, lockPage } from '../td/operands.ts';
import { drawQwords } from '../td/random.ts';
import { forgetTrustDomain, trustDomainAt } from '../td/trust-domain.ts';
import type { TdxModule } from '../tdx-module.ts';

const HKID_LIMIT = 0x1_0000;
const UUID_QWORDS = 4;

/** @internal */
export const mngCreate: Leaf = { handler: locking(run) };

function run(module: TdxModule, lp: LogicalProcessor, held: Held): bigint {
  const { regs } = lp;
  const hkid = regs.d[2 * RDX]!;
  if (regs.d[2 * RDX + 1] !== 0 || hkid >= HKID_LIMIT || !module.isPrivateKeyId(hkid)) {
    return withOperand(STATUS.TDX_OPERAND_INVALID, OPERAND.RDX);
  }
  const page = lockPage(module, held, regs, RCX, 'exclusive', PAGE_TYPE.NDA);
  if (typeof page === 'bigint') return page;
  const { kot } = module;
  if (!kot.lock.tryExclusive()) return withOperand(STATUS.TDX_OPERAND_BUSY, OPERAND.KOT);
  held.add({ release: () => kot.lock.releaseExclusive() });
  if (kot.states[hkid] !== HKID_STATE.FREE) return STATUS.TDX_HKID_NOT_FREE;
  module.machine.memory.claim(page.address, page.address + PAGE_4K, module.globalKeyId);
  const uuid = drawQwords(module, UUID_QWORDS);
  if (uuid === undefined) return STATUS.TDX_RND_NO_ENTROPY;

  forgetTrustDomain(module, page.address);
  const { tdr } = trustDomainAt(module, page.address);
  uuid.forEach((qword, i) => {
    tdr.setU64(TDR.TD_UUID + 8 * i, qword);
  });
  kot.states[hkid] = HKID_STATE.ASSIGNED;
  tdr.setU16(TDR.HKID, hkid);
  tdr.setU32(TDR.LIFECYCLE_STATE, LIFECYCLE.HKID_ASSIGNED);
  tdr.setU16(TDR.HANDOFF_VERSION, module.machine.seam.handoff.moduleHv);
  givePage(page, PAGE_TYPE.TDR, 0);
  return STATUS.TDX_SUCCESS;
}
