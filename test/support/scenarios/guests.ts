/** Scenarios of what guests do: CPUID, MSRs, control registers, I/O, memory, TDCALLs; in TDs of several kinds. */
import { hex, PAGE_4K } from '../../../src/abi/address.ts';
import { CPUID_POLICIES } from '../../../src/abi/cpuid-policy.ts';
import { TDG, TDH } from '../../../src/abi/leaves.ts';
import { MSR_POLICIES } from '../../../src/abi/msr-policy.ts';
import { EXIT } from '../../../src/abi/vm-exit.ts';
import type { Operands, ScenarioHost } from './scenario-host.ts';
import { ScenarioTd, type ScenarioTdOptions } from './scenario-td.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
const TD_CTLS = 0x9110_0003_0000_0017n;
const REDUCE_VE = 1n << 3n;

/** A TD that runs: three measured pages from GPA 0, one pending page after them. */
function runningTd(host: ScenarioHost, options: ScenarioTdOptions): ScenarioTd {
  host.bringUp();
  const td = new ScenarioTd(host, options);
  td.addTables(0);
  for (let page = 0; page < 3; page++) td.addMeasured(page * PAGE_4K, 0x30_0000, page + 9);
  td.addVcpu(0);
  host.must(TDH.mrFinalize, { rcx: td.tdr });
  td.on(TDH.memPageAug, 3 * PAGE_4K, 0, { r8: host.page() });
  return td;
}

/** CPUID leaves the module knows and some that it does not, before and after #VE reduction. */
export function cpuid(host: ScenarioHost): void {
  const td = runningTd(host, { xfam: 0x6_02e7n, attributes: 1n << 30n });
  const unknown = [0x21, 0x23, 0x24, 0x4000_0000, 0x4000_0001, 0x8000_0021, 0xffff_ffff];
  const leaves = [
    ...CPUID_POLICIES.map(({ leaf, subleaf }) => [leaf, subleaf ?? 0] as const),
    ...unknown.map((leaf) => [leaf, 0] as const),
    [7, 9],
    [0xd, 40],
    [0x21, 1],
  ] as const;
  const visit = (every: number): void => {
    leaves.forEach(([leaf, subleaf], i) => {
      if (i % every === 0)
        td.exitAndHandle(EXIT.CPUID, { rax: BigInt(leaf), rcx: BigInt(subleaf), rbx: ALL });
    });
  };
  visit(1);
  td.tdcall(TDG.vmWr, { rdx: TD_CTLS, r8: REDUCE_VE, r9: REDUCE_VE });
  visit(2);
  td.tdcall(TDG.vpCpuidveSet, { rcx: 3n });
  visit(5);
}

/** MSRs of the table, read and written, and some beyond it. */
export function msrs(host: ScenarioHost): void {
  const td = runningTd(host, { xfam: 0x1_9a07n & 0x1a07n, attributes: 1n });
  const addresses = MSR_POLICIES.flatMap(({ start, end }) => (start === end ? [start] : [start, end]));
  const visit = (every: number): void => {
    [...addresses, 0x2000, 0xc000_3000, 0x4000_0000].forEach((address, i) => {
      if (i % every !== 0) return;
      const rcx = BigInt(address);
      td.exitAndHandle(EXIT.RDMSR, { rcx, rax: ALL });
      td.exitAndHandle(EXIT.WRMSR, { rcx, rax: BigInt(i), rdx: i % 3 === 0 ? 0n : 1n });
    });
  };
  visit(3);
  td.tdcall(TDG.vmWr, { rdx: TD_CTLS, r8: REDUCE_VE, r9: REDUCE_VE });
  visit(7);
}

/** Every other kind of exit, with and without #VE, and a triple fault in the end. */
export function exits(host: ScenarioHost): void {
  const td = runningTd(host, { configFlags: 6n, xfam: 0x2e7n });
  const plain = [EXIT.HLT, EXIT.INVD, EXIT.WBINVD, EXIT.VMCALL, EXIT.RDPMC, EXIT.MONITOR, EXIT.MWAIT];
  const undefinedOpcodes = [EXIT.VMXON, EXIT.VMREAD, EXIT.GETSEC, EXIT.RSM, EXIT.ENCLS, EXIT.SEAMCALL];
  for (const reason of [...plain, ...undefinedOpcodes, EXIT.PCONFIG, EXIT.ENQCMD])
    td.exitAndHandle(reason, {});
  for (const qual of [0x3f8_000a, 0x71_0000, 0xcf8_0043]) {
    td.exitAndHandle(EXIT.IO, { rax: 7n }, { qual: hex(qual) });
  }
  for (const value of [0x8000_0031n, 0x31n, 0x8005_0033n, 0x2000_0031n, 1n << 40n]) {
    td.exitAndHandle(EXIT.CR_ACCESS, { rdx: value }, { qual: '0x200' });
  }
  for (const value of [0x20n, 0x668n, 0x2068n, 0x40_0060n, 0x80_0060n, 0x1_0060n, ALL]) {
    td.exitAndHandle(EXIT.CR_ACCESS, { rsi: value }, { qual: '0x604' });
  }
  for (const rax of [1n, 3n, 7n, 0x2e7n, 0x8n, ALL]) td.exitAndHandle(EXIT.XSETBV, { rax });
  for (const gpa of [0x3000, 0x5000, 0x8000_0000_0000, 0x1_0000_0000]) {
    for (const qual of [0x181, 0x182, 0x184]) {
      td.exitAndHandle(EXIT.EPT_VIOLATION, {}, { qual: hex(qual), gpa: hex(gpa), gla: '0xabc' });
      td.interrupt();
    }
  }
  td.exitAndHandle(EXIT.EPT_MISCONFIGURATION, {}, { gpa: '0x800000009000' });
  td.exit(EXIT.EXCEPTION_OR_NMI, {}, { intr_info: '0x80000202' });
  for (const reason of [EXIT.INIT, EXIT.SMI, EXIT.TASK_SWITCH, EXIT.NOTIFICATION, EXIT.TRIPLE_FAULT]) {
    td.exit(reason);
  }
  host.call(TDH.vpEnter, { rcx: td.vcpus[0]! });
}

/** Every guest leaf, with operands that are right and wrong, in 64-bit mode and outside it. */
export function tdcalls(host: ScenarioHost): void {
  const td = runningTd(host, { attributes: 1n << 28n });
  const operands = [
    {},
    { rcx: 0x1000n, rdx: 0x2000n },
    { rcx: 0x1040n, rdx: 1n },
    { rcx: 0x3000n, rdx: 0x2040n },
    { rcx: 0x7000n, rdx: 0x7000n },
    { rcx: ALL, rdx: ALL, r8: ALL, r9: ALL },
    { rdx: 0x1110_0003_0000_0000n },
    { rdx: 0x9110_0003_0000_0010n, r8: 1n, r9: 1n },
    { rdx: 0x9010_0002_0000_0001n, r8: 1n, r9: ALL },
  ];
  for (const leaf of [...Object.values(TDG), 99]) {
    for (const own of operands) td.tdcall(leaf, own);
    td.tdcall(leaf | (1 << 16), operands[1]);
  }
  td.tdcall(1 << 24);
  host.expectMemory(Number(td.pages.at(-1)), PAGE_4K, td.keyId);
  td.tdcall(TDG.vpInfo);
  host.recorder.record({ t: 'guest_state', lp: 0, set: { cs_ar: '0xc09b' } });
  td.tdcall(TDG.vpInfo);
}

/** A migration TD that is announced, bound, reads and writes the TD it serves, and is replaced by a twin. */
export function serviceTds(host: ScenarioHost): void {
  host.bringUp();
  const target = new ScenarioTd(host);
  const [service, twin] = [2, 3].map((i) => {
    const td = new ScenarioTd(host, { keyId: host.firstPrivateKeyId + i });
    td.addVcpu(0);
    host.must(TDH.mrFinalize, { rcx: td.tdr });
    return td;
  }) as [ScenarioTd, ScenarioTd];
  const to = { rcx: target.tdr, rdx: service.tdr };
  const ignoreRtmrs = 0x3c0n << 32n;
  host.call(TDH.servtdBind, { ...to, rdx: target.tdr });
  host.call(TDH.servtdBind, { ...to, r8: 1n });
  host.call(TDH.servtdBind, { ...to, r9: 1n });
  host.call(TDH.servtdBind, { ...to, r10: 2n });
  host.call(TDH.servtdPrebind, { ...to, rdx: 0x30_0000n });
  host.call(TDH.servtdBind, to);
  const unbound = new ScenarioTd(host, { keyId: host.firstPrivateKeyId + 4 });
  const bind = (operands: object): Operands =>
    host.call(TDH.servtdBind, { rcx: unbound.tdr, rdx: service.tdr, r10: ignoreRtmrs, ...operands });
  const { rcx = 0n, r10 = 0n, r11 = 0n, r12 = 0n, r13 = 0n } = bind({});
  host.call(TDH.servtdPrebind, { rcx: unbound.tdr, rdx: 0x30_0000n });
  bind({ r10: 0n });
  const own = { rcx, r10, r11, r12, r13 };
  let next = ALL;
  for (let left = 30; left > 0; left--) {
    const { out } = service.tdcall(TDG.servtdRd, { ...own, rdx: next }) as { out?: Record<string, string> };
    next = BigInt(out?.rdx ?? ALL);
  }
  for (const rdx of [0x9810_0003_0000_0018n, 0x9810_0003_0000_0019n, 0x1310_0003_0000_0000n]) {
    service.tdcall(TDG.servtdRd, { ...own, rdx });
  }
  for (const rdx of [0x9810_0003_0000_0010n, 0x9810_0001_0000_0020n, 0x1110_0003_0000_0000n]) {
    service.tdcall(TDG.servtdWr, { ...own, rdx, r8: 5n, r9: ALL });
  }
  service.tdcall(TDG.servtdRd, { ...own, r13: 0n, rdx: TD_CTLS });
  service.tdcall(TDG.servtdRd, { ...own, rcx: rcx + 1n, rdx: TD_CTLS });
  service.interrupt();
  bind({ rdx: twin.tdr });
  service.tdcall(TDG.servtdRd, { ...own, rdx: 0x1110_0003_0000_0000n });
  unbound.addVcpu(0);
  host.must(TDH.mrFinalize, { rcx: unbound.tdr });
  for (let part = 0n; part < 6n; part++) {
    host.call(TDH.mngRd, { rcx: unbound.tdr, rdx: 0x9910_0003_0000_0000n + part });
  }
  bind({});
  service.tdcall(TDG.servtdRd, { ...own, rdx: 0x1110_0003_0000_0000n });
}
