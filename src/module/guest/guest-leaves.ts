/** The guest leaves by number. */
import { TDG } from '../../abi/leaves.ts';
import type { GuestLeaf } from './guest-leaf.ts';
import { memPageAccept } from './leaves/mem-page-accept.ts';
import { memPageAttrRd } from './leaves/mem-page-attr-rd.ts';
import { memPageAttrWr } from './leaves/mem-page-attr-wr.ts';
import { mrReport } from './leaves/mr-report.ts';
import { mrRtmrExtend } from './leaves/mr-rtmr-extend.ts';
import { mrVerifyreport } from './leaves/mr-verifyreport.ts';
import { sysRd } from './leaves/sys-rd.ts';
import { sysRdall } from './leaves/sys-rdall.ts';
import { vmRd } from './leaves/vm-rd.ts';
import { vmWr } from './leaves/vm-wr.ts';
import { vpCpuidveSet } from './leaves/vp-cpuidve-set.ts';
import { vpEnter } from './leaves/vp-enter.ts';
import { vpInfo } from './leaves/vp-info.ts';
import { vpInvept } from './leaves/vp-invept.ts';
import { vpInvvpid } from './leaves/vp-invvpid.ts';
import { vpRd } from './leaves/vp-rd.ts';
import { vpVeinfoGet } from './leaves/vp-veinfo-get.ts';
import { vpVmcall } from './leaves/vp-vmcall.ts';
import { vpWr } from './leaves/vp-wr.ts';
import { accessServedTd } from './servtd-target.ts';

/** @internal */
export const GUEST_LEAVES: readonly (GuestLeaf | undefined)[] = ((): (GuestLeaf | undefined)[] => {
  const table: (GuestLeaf | undefined)[] = [];
  const rows: readonly (readonly [number: number, leaf: GuestLeaf])[] = [
    [TDG.vpVmcall, vpVmcall],
    [TDG.vpInfo, vpInfo],
    [TDG.mrRtmrExtend, mrRtmrExtend],
    [TDG.vpVeinfoGet, vpVeinfoGet],
    [TDG.vpCpuidveSet, vpCpuidveSet],
    [TDG.memPageAccept, memPageAccept],
    [TDG.mrReport, mrReport],
    [TDG.servtdRd, (vcpu) => accessServedTd(vcpu, TDG.servtdRd)],
    [TDG.servtdWr, (vcpu) => accessServedTd(vcpu, TDG.servtdWr)],
    [TDG.vpEnter, vpEnter],
    [TDG.vpInvept, vpInvept],
    [TDG.vpInvvpid, vpInvvpid],
    [TDG.mrVerifyreport, mrVerifyreport],
    [TDG.memPageAttrRd, memPageAttrRd],
    [TDG.memPageAttrWr, memPageAttrWr],
    [TDG.vmRd, vmRd],
    [TDG.vmWr, vmWr],
    [TDG.vpRd, vpRd],
    [TDG.vpWr, vpWr],
    [TDG.sysRd, sysRd],
    [TDG.sysRdall, sysRdall],
  ];
  for (const [number, leaf] of rows) table[number] = leaf;
  return table;
})();
