/** The fields of a TD's control structures against the abstract state. */
import { hex } from '../../abi/address.ts';
import { OP_STATE } from '../../abi/op-states.ts';
import { LIFECYCLE, NO_LP, TDCS, TDCS_PAGES_MIN, TDR, TDVPS, VCPU_STATE } from '../../module/td/layout.ts';
import type { TrustDomain } from '../../module/td/trust-domain.ts';
import type { AbstractPlatform, AbstractTd, AbstractVcpu } from './abstract-state.ts';
import type { Differences } from './differences.ts';

/** Compares what TDR, TDCS and TDVPS say, as far as the TD has them and their key. @internal */
export function compareTd(
  platform: AbstractPlatform,
  td: AbstractTd,
  real: TrustDomain,
  found: Differences,
): void {
  const where = `TD ${hex(td.tdr)}`;
  const { tdr } = real;
  found.check(where, 'KeyID', td.keyId, tdr.u16(TDR.HKID));
  found.check(where, 'life cycle', LIFECYCLE[td.lifeCycle], tdr.u32(TDR.LIFECYCLE_STATE));
  found.check(where, 'FATAL', td.fatal, tdr.flag(TDR.FATAL));
  found.check(where, 'packages with its key', td.configuredPackages, tdr.n64(TDR.PKG_CONFIG_BITMAP));
  found.check(where, 'TDCS pages', td.tdcs.length, tdr.u32(TDR.NUM_TDCX));
  found.check(where, 'child pages', td.children, tdr.n64(TDR.CHLDCNT));
  if (td.lifeCycle === 'TEARDOWN' || td.tdcs.length < TDCS_PAGES_MIN) return;
  const { tdcs } = real;
  found.check(where, 'OP_STATE', OP_STATE[td.opState], tdcs.u32(TDCS.OP_STATE));
  if (td.opState === 'UNINITIALIZED') return;
  found.check(where, 'TD_EPOCH', td.epoch, tdcs.u64(TDCS.TD_EPOCH));
  found.check(where, 'vCPUs', td.initialisedVcpus, tdcs.u32(TDCS.NUM_VCPUS));
  for (const vcpu of td.vcpus.values()) compareVcpu(platform, td, vcpu, real, found);
}

function compareVcpu(
  { lpIds }: AbstractPlatform,
  td: AbstractTd,
  vcpu: AbstractVcpu,
  real: TrustDomain,
  found: Differences,
): void {
  const where = `vCPU ${hex(vcpu.tdvpr)}`;
  const tdvpr = real.tdvpr(vcpu.tdvpr);
  found.check(where, 'pages', vcpu.pages.length, tdvpr.u8(TDVPS.NUM_TDVPS_PAGES));
  const lpId = vcpu.lp === null ? NO_LP : lpIds[vcpu.lp];
  found.check(where, 'associated LP', lpId, tdvpr.u32(TDVPS.ASSOC_LPID));
  found.check(where, 'epoch', vcpu.epoch, tdvpr.u64(TDVPS.VCPU_EPOCH));
  // What is left of a vCPU when its TD ends by force is nobody's business.
  if (!td.fatal) found.check(where, 'state', VCPU_STATE[vcpu.state], tdvpr.u8(TDVPS.VCPU_STATE));
}
