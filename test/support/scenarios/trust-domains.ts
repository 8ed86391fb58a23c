/** Scenarios of TDs as their host sees them: building, running on two packages, ending; memory; locks; dynamic PAMT. */
import { hex, MIB, PAGE_2M, PAGE_4K } from '../../../src/abi/address.ts';
import { TDG, TDH } from '../../../src/abi/leaves.ts';
import { EXIT } from '../../../src/abi/vm-exit.ts';
import { ONE_TDMR } from '../ready-module.ts';
import type { Operands, ScenarioHost } from './scenario-host.ts';
import { ScenarioTd, scenarioTdParams } from './scenario-td.ts';

const PARAMS = 0x21_0000;
const SOURCE = 0x30_0000;
const VERSION_1 = 1 << 16;
const ALL = 0xffff_ffff_ffff_ffffn;

/** TD_PARAMS that MNG.INIT refuses, and ones that it takes, each for a TD of its own. */
export function creation(host: ScenarioHost): void {
  host.bringUp();
  const tdr = host.page();
  const keyId = BigInt(host.firstPrivateKeyId);
  for (const rdx of [keyId, keyId - 1n, keyId + 64n, ALL]) host.call(TDH.mngCreate, { rcx: tdr, rdx });
  host.call(TDH.mngCreate, { rcx: tdr + 1n, rdx: keyId + 1n });
  host.call(TDH.mngCreate, { rcx: 0n, rdx: keyId + 1n });
  host.env({ rng_fail: 1 });
  host.call(TDH.mngCreate, { rcx: tdr, rdx: keyId + 1n });
  host.env({ rng_fail: 0 });
  host.must(TDH.mngCreate, { rcx: tdr, rdx: keyId + 1n });
  host.call(TDH.mngCreate, { rcx: host.page(), rdx: keyId + 1n });
  host.call(TDH.mngAddcx, { rcx: host.page(), rdx: tdr });
  for (const lp of host.packageLps) {
    host.call(TDH.mngKeyConfig, { rcx: tdr }, lp);
    host.call(TDH.mngKeyConfig, { rcx: tdr }, lp);
  }
  host.call(TDH.mngInit, { rcx: tdr, rdx: BigInt(PARAMS) });
  for (let i = 0; i < 9; i++) host.must(TDH.mngAddcx, { rcx: host.page(), rdx: tdr });
  host.call(TDH.mngAddcx, { rcx: host.page(), rdx: tdr });
  const refused: readonly (readonly [offset: number, value: number])[] = [
    [0, 2],
    [3, 0x80],
    [8, 1],
    [8, 0x23],
    [9, 0x08],
    [16, 0],
    [18, 4],
    [20, 1],
    [24, 0x1d],
    [25, 0x02],
    [32, 0x18],
    [33, 0x80],
    [40, 3],
    [42, 1],
    [240, 1],
    [256, 0x1],
    [256 + 16 * 5 + 3, 0xff],
    [1023, 1],
  ];
  for (const [offset, value] of refused) {
    const params = scenarioTdParams({});
    params[offset] = value;
    host.write(PARAMS, params);
    host.call(TDH.mngInit, { rcx: tdr, rdx: BigInt(PARAMS) });
  }
  host.call(TDH.mngInit, { rcx: tdr, rdx: BigInt(PARAMS) + 8n });
  host.call(TDH.mngInit, { rcx: tdr | 2n, rdx: BigInt(PARAMS) });
  host.write(PARAMS, scenarioTdParams({ l2Vms: 3, attributes: 1n, xfam: 0x6_02e7n }));
  host.must(TDH.mngInit, { rcx: tdr, rdx: BigInt(PARAMS) });
  host.call(TDH.mngInit, { rcx: tdr, rdx: BigInt(PARAMS) });
  const variants = [
    { attributes: 1n << 28n, xfam: 0xe7n, configFlags: 6n },
    { attributes: 1n << 30n, xfam: 0x2e7n },
    { attributes: 1n << 63n, xfam: 7n, l2Vms: 1 },
    { attributes: 1n << 29n, xfam: 0x1807n },
  ];
  variants.forEach((variant, i) => {
    const td = new ScenarioTd(host, { ...variant, keyId: host.firstPrivateKeyId + 2 + i });
    for (let field = 0n; field < 8n; field++) {
      host.call(TDH.mngRd, { rcx: td.tdr, rdx: 0x1110_0003_0000_0000n + field });
    }
    const first = host.call(TDH.mngRd | VERSION_1, { rcx: td.tdr, rdx: 0x9410_0003_0000_0300n });
    let id = first.rdx ?? ALL;
    for (let left = 40; left > 0 && id !== ALL; left--) {
      id = host.call(TDH.mngRd | VERSION_1, { rcx: td.tdr, rdx: id }).rdx ?? ALL;
    }
  });
}

/** Two TDs with several vCPUs on LPs of both packages, from measured pages to reclaimed ones; out of order too. */
export function life(host: ScenarioHost): void {
  host.bringUp();
  const tds = [0, 1].map((i) => {
    const td = new ScenarioTd(host, { keyId: host.firstPrivateKeyId + 1 + i, attributes: BigInt(i) });
    td.addTables(0);
    td.on(TDH.memPageAug, 0x8000, 0, { r8: host.page() });
    for (let page = 0; page < 3; page++) td.addMeasured(page * PAGE_4K, SOURCE, 3 * i + page + 5);
    host.expectMemory(Number(td.pages.at(-1)), PAGE_4K, td.keyId);
    host.call(TDH.mrExtend, { rcx: 0x4000n, rdx: td.tdr });
    host.call(TDH.mrExtend, { rcx: 0x80n, rdx: td.tdr });
    host.call(TDH.mrFinalize, { rcx: td.tdr });
    td.addVcpu(4 * i);
    td.addVcpu(4 * i + 2);
    host.call(TDH.vpInit, { rcx: td.vcpus[0]! });
    host.must(TDH.mrFinalize, { rcx: td.tdr });
    host.call(TDH.mrFinalize, { rcx: td.tdr });
    host.call(TDH.mrExtend, { rcx: 0n, rdx: td.tdr });
    host.call(TDH.vpEnter, { rcx: td.vcpus[1]! }, 2);
    host.must(TDH.vpFlush, { rcx: td.vcpus[1]! });
    for (let part = 0n; part < 6n; part++) {
      host.call(TDH.mngRd, { rcx: td.tdr, rdx: 0x1310_0003_0000_0000n + part });
    }
    return td;
  });
  const lpOf = [0, 2];
  for (const td of tds) {
    lpOf.forEach((lp, index) => {
      td.enter(lp, index);
      td.exit(EXIT.TDCALL, { rax: BigInt(TDG.vpInfo) }, { instr_len: 4 }, lp, index);
      host.call(TDH.vpEnter, { rcx: td.vcpus[index]! }, lp === 0 ? 1 : 3);
      td.exit(EXIT.TDCALL, { rcx: 0xfc0cn, r10: 1n, r11: 12n, rdx: 7n }, { instr_len: 4 }, lp, index);
      host.call(TDH.vpEnter, { rcx: td.vcpus[index]!, r10: 5n, r11: 6n, rdx: 8n }, lp);
      td.exit(EXIT.EXTERNAL_INTERRUPT, {}, { intr_info: '0x80000020' }, lp, index);
      host.call(TDH.vpRd, { rcx: td.vcpus[index]!, rdx: 0x2010_0003_0000_0001n }, lp);
    });
  }
  const [first, second] = tds as [ScenarioTd, ScenarioTd];
  takeWhileRunning(first, lpOf[1]!);
  host.call(TDH.mngVpflushdone, { rcx: first.tdr });
  host.call(TDH.mngKeyFreeid, { rcx: first.tdr });
  host.call(TDH.phymemPageReclaim, { rcx: first.pages[0]! });
  host.call(TDH.vpFlush, { rcx: first.vcpus[1]! }, 0);
  host.call(TDH.phymemCacheWb, { rcx: 1n });
  host.call(TDH.mngKeyReclaimid, { rcx: first.tdr });
  first.tearDown(lpOf);
  host.call(TDH.mngRd, { rcx: first.tdr, rdx: 0x1110_0003_0000_0000n });
  second.tearDown(lpOf);
  host.call(TDH.phymemPageWbinvd, { rcx: first.tdr });
}

/** The host takes pages from a TD while its second vCPU runs on `lp` and may still reach them. */
function takeWhileRunning(td: ScenarioTd, lp: number): void {
  const hostLp = 1;
  const track = (): Operands => td.host.call(TDH.memTrack, { rcx: td.tdr }, hostLp);
  const on = (leaf: number, gpa: number): Operands => td.on(leaf, gpa, 0, {}, hostLp);
  td.enter(lp, 1);
  on(TDH.memRangeBlock, PAGE_4K);
  on(TDH.memPageRemove, PAGE_4K);
  track();
  on(TDH.memPageRemove, PAGE_4K);
  track();
  td.enter(0, 0);
  td.exit(EXIT.EXTERNAL_INTERRUPT, {}, { intr_info: '0x80000020' }, lp, 1);
  on(TDH.memRangeUnblock, PAGE_4K);
  on(TDH.memRangeBlock, PAGE_4K);
  track();
  track();
  td.interrupt();
  track();
  on(TDH.memPageRemove, PAGE_4K);
  on(TDH.memPageRemove, 0);
}

/** A random walk over the leaves on memory, of a TD that is built and then runs; half of the calls are refused. */
export function memoryWalk(host: ScenarioHost): void {
  host.bringUp();
  const td = new ScenarioTd(host, { levels: 5, configFlags: 1n, attributes: 1n });
  td.addTables(0);
  td.addVcpu(0);
  const { dice } = host;
  const gpas = [0, PAGE_4K, PAGE_2M - PAGE_4K, PAGE_2M, PAGE_2M + PAGE_4K, 4 * PAGE_2M];
  const pages = Array.from({ length: 12 }, () => host.page());
  const large = [host.largePage(), host.largePage()];
  const level = (): number => dice.pick([0, 0, 0, 1, 1, 2]);
  const page = (): Operands => ({ r8: dice.pick([...pages, ...large]), r9: BigInt(SOURCE) });
  const steps: readonly (() => unknown)[] = [
    () => td.on(TDH.memPageAug, dice.pick(gpas), level(), page()),
    () => td.on(TDH.memPageAug, dice.pick([0, PAGE_2M]), 1, { r8: dice.pick(large) }),
    () => td.on(TDH.memPageAdd, dice.pick(gpas), level(), page()),
    () => td.on(TDH.memSeptAdd, dice.pick([0, PAGE_2M, 4 * PAGE_2M]), 1, page()),
    () => td.on(TDH.memSeptAdd, dice.pick([0, PAGE_2M]), 1, { r8: dice.pick(pages) }),
    () => td.on(TDH.memSeptRemove, dice.pick([0, PAGE_2M]), 1),
    () => td.on(TDH.memRangeBlock, dice.pick(gpas), level()),
    () => td.on(TDH.memRangeBlock, dice.pick(gpas), 0),
    () => td.on(TDH.memRangeUnblock, dice.pick(gpas), level()),
    () => td.on(TDH.memPageRemove, dice.pick(gpas), level()),
    () => td.on(TDH.memPageRemove, dice.pick(gpas), 0),
    () => td.on(TDH.memPageRelocate, dice.pick(gpas), 0, page()),
    () => td.on(TDH.memPageDemote, dice.pick([0, PAGE_2M]), 1, page()),
    () => td.on(TDH.memPagePromote, dice.pick([0, PAGE_2M]), 1),
    () => td.on(TDH.memSeptRd, dice.pick(gpas), level()),
    () => td.on(TDH.memRd, dice.pick(gpas)),
    () => td.on(TDH.memWr, dice.pick(gpas), 0, { r8: dice.next64() }),
    () => host.call(TDH.memTrack, { rcx: td.tdr }),
    () => host.call(TDH.phymemPageRdmd, { rcx: dice.pick([...pages, ...large]) }),
    () => host.call(TDH.phymemPageWbinvd, { rcx: dice.pick(pages) }),
  ];
  host.fill(SOURCE, 11);
  for (let i = 0; i < 120; i++) dice.pick(steps)();
  host.must(TDH.mrFinalize, { rcx: td.tdr });
  for (let i = 0; i < 480; i++) {
    dice.pick(steps)();
    if (i % 16 === 0) {
      td.tdcall(TDG.memPageAccept, { rcx: BigInt(dice.pick(gpas)) | BigInt(dice.pick([0, 0, 1])) });
      td.interrupt();
    }
  }
}

/** Every lock held, shared or exclusive, or wanted by a host, while leaves of host and guest want it. */
export function locks(host: ScenarioHost): void {
  host.bringUp();
  const td = new ScenarioTd(host);
  td.addTables(0);
  td.addMeasured(0, SOURCE, 3);
  td.addVcpu(0);
  host.must(TDH.mrFinalize, { rcx: td.tdr });
  td.on(TDH.memPageAug, PAGE_4K, 0, { r8: host.page() });
  const tdr = hex(td.tdr);
  const shareable = ['exclusive', 'shared'] as const;
  const hostPriority = [...shareable, 'hp'] as const;
  /** What a guest wants too, beside what its vCPU holds while it runs. */
  const guestLocks = ['RTMR', 'SEPT_ENTRY'];
  const objects = [
    { obj: 'KOT', states: shareable },
    { obj: 'WBT', index: 0, states: [1] as const },
    { obj: 'SEPT_TREE', tdr, states: hostPriority },
    { obj: 'OP_STATE', tdr, states: hostPriority },
    { obj: 'TD_EPOCH', tdr, states: shareable },
    { obj: 'RTMR', tdr, states: hostPriority },
    { obj: 'SEPT_ENTRY', tdr, gpa: hex(PAGE_4K), level: 0, states: [1] as const },
    { obj: 'PAMT', pa: tdr, level: 0, states: hostPriority },
    { obj: 'PAMT', pa: hex(host.page()), level: 0, states: hostPriority },
    { obj: 'PAMT', pa: hex(ONE_TDMR.base), level: 1, states: hostPriority },
  ];
  const calls = (): void => {
    host.call(TDH.mngCreate, { rcx: host.page(), rdx: BigInt(host.firstPrivateKeyId + 5) });
    host.call(TDH.mngRd, { rcx: td.tdr, rdx: 0x1110_0003_0000_0000n });
    host.call(TDH.phymemCacheWb);
    td.on(TDH.memPageAug, 2 * PAGE_4K, 0, { r8: host.page() });
    td.on(TDH.memSeptRd, PAGE_4K);
    td.on(TDH.memRangeBlock, PAGE_4K);
    td.on(TDH.memRangeUnblock, PAGE_4K);
    td.on(TDH.memPageRemove, 2 * PAGE_4K);
    host.call(TDH.memTrack, { rcx: td.tdr });
    host.call(TDH.phymemPageRdmd, { rcx: td.tdr });
    host.call(TDH.mngVpflushdone, { rcx: td.tdr });
  };
  for (const { states, ...object } of objects) {
    for (const held of states) {
      host.note(`${object.obj} ${held}`);
      host.whileHeld(object, held, calls);
      if (!guestLocks.includes(object.obj)) continue;
      td.enter();
      host.whileHeld(object, held, () => {
        td.tdcall(TDG.mrRtmrExtend, { rcx: 0n });
        td.tdcall(TDG.memPageAccept, { rcx: BigInt(PAGE_4K) });
      });
      td.interrupt();
    }
  }
}

/** Metadata pages given and taken back, and a TD that lives on them. */
export function dynamicPamt(host: ScenarioHost): void {
  host.call(TDH.phymemPamtAdd, { rcx: BigInt(ONE_TDMR.base) | 1n });
  host.bringUp(true);
  const base = BigInt(ONE_TDMR.base);
  const donor = base + BigInt(256 * MIB);
  const add = (i: bigint, pages = 2n * i): Operands =>
    host.call(TDH.phymemPamtAdd, {
      rcx: (base + i * BigInt(PAGE_2M)) | 1n,
      rdx: donor + pages * BigInt(PAGE_4K),
      r8: donor + (pages + 1n) * BigInt(PAGE_4K),
    });
  host.call(TDH.mngCreate, { rcx: base, rdx: BigInt(host.firstPrivateKeyId + 1) });
  add(0n, 128n);
  host.call(TDH.phymemPamtAdd, { rcx: base | 1n, rdx: base, r8: base });
  host.call(TDH.phymemPamtAdd, { rcx: base, rdx: base, r8: base + 4096n });
  for (let i = 0n; i < 3n; i++) add(i);
  add(0n);
  add(3n, 1n);
  for (const rcx of [base, base | 1n, donor, donor | 1n, base + 64n * BigInt(PAGE_2M)]) {
    host.call(TDH.phymemPageRdmd, { rcx });
  }
  const td = new ScenarioTd(host);
  td.addTables(0);
  td.addVcpu(0);
  host.must(TDH.mrFinalize, { rcx: td.tdr });
  td.on(TDH.memPageAug, 0, 0, { r8: donor });
  td.on(TDH.memPageAug, 0, 0, { r8: base + 8n * BigInt(PAGE_2M) });
  td.on(TDH.memPageAug, PAGE_2M, 1, { r8: base + 8n * BigInt(PAGE_2M) });
  td.on(TDH.memPageAug, 0, 0, { r8: base + BigInt(PAGE_2M) });
  host.call(TDH.phymemPamtRemove, { rcx: (base + BigInt(PAGE_2M)) | 1n });
  td.tdcall(TDG.memPageAccept, { rcx: BigInt(PAGE_2M) | 1n });
  td.interrupt();
  const pair: Operands = { r12: donor + 40n * 4096n, r13: donor + 41n * 4096n };
  td.on(TDH.memPageDemote, PAGE_2M, 1, { r8: host.page(), ...pair });
  for (const [gpa, level] of [
    [0, 0],
    [PAGE_2M, 1],
  ] as const) {
    td.on(TDH.memRangeBlock, gpa, level);
    host.call(TDH.memTrack, { rcx: td.tdr });
    if (level === 1) td.on(TDH.memPageDemote, gpa, level, { r8: host.page(), ...pair });
    else td.on(TDH.memPageRemove, gpa, level);
  }
  td.on(TDH.memRangeBlock, PAGE_2M, 1);
  host.call(TDH.memTrack, { rcx: td.tdr });
  td.on(TDH.memPagePromote, PAGE_2M, 1);
  host.call(TDH.phymemPamtRemove, { rcx: (base + BigInt(PAGE_2M)) | 1n });
  host.call(TDH.phymemPamtRemove, { rcx: (base + BigInt(PAGE_2M)) | 1n });
  td.tearDown();
  for (let i = 0n; i < 3n; i++) {
    host.call(TDH.phymemPamtRemove, { rcx: (base + i * BigInt(PAGE_2M)) | 1n });
  }
}
