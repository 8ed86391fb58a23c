/** A TD of a scenario, and the exits of its vCPUs. */
import { hex, PAGE_4K } from '../../../src/abi/address.ts';
import { TDG, TDH } from '../../../src/abi/leaves.ts';
import { encodeTdParams, TD_PARAMS_AT } from '../../../src/abi/td-params.ts';
import { EXIT } from '../../../src/abi/vm-exit.ts';
import type { JsonLine } from '../vector-recorder.ts';
import type { Operands, ScenarioHost } from './scenario-host.ts';

const TD_PARAMS = 0x20_0000;
const WRITE_BACK = 6n;
const TSC_1_GHZ = 40;
const TDCS_PAGES = 6;
const TDCX_PER_VCPU = 5;
const LONG_MODE = { cs_ar: '0xa09b', efer: '0xd01', cr0: '0x80000031' } as const;
const CODE = 0x40_1000;

export interface ScenarioTdOptions {
  readonly keyId?: number;
  readonly attributes?: bigint;
  readonly xfam?: bigint;
  readonly configFlags?: bigint;
  readonly levels?: 4 | 5;
  readonly l2Vms?: number;
}

export class ScenarioTd {
  readonly host: ScenarioHost;
  readonly keyId: number;
  readonly tdr: bigint;
  /** All pages of the TD but the TDR, for its end. */
  readonly pages: bigint[] = [];
  readonly vcpus: bigint[] = [];
  readonly #options: ScenarioTdOptions;
  #rip = CODE;

  /** MNG.CREATE to MNG.INIT. */
  constructor(host: ScenarioHost, options: ScenarioTdOptions = {}) {
    this.host = host;
    this.#options = options;
    this.keyId = options.keyId ?? host.firstPrivateKeyId + 1;
    this.tdr = host.page();
    host.must(TDH.mngCreate, { rcx: this.tdr, rdx: BigInt(this.keyId) });
    for (const lp of host.packageLps) host.must(TDH.mngKeyConfig, { rcx: this.tdr }, lp);
    const { l2Vms = 0 } = options;
    for (let i = 0; i < TDCS_PAGES + l2Vms; i++) {
      host.must(TDH.mngAddcx, { rcx: this.#own(), rdx: this.tdr });
    }
    host.write(TD_PARAMS, scenarioTdParams(options));
    host.must(TDH.mngInit, { rcx: this.tdr, rdx: BigInt(TD_PARAMS) });
  }

  #own(): bigint {
    const page = this.host.page();
    this.pages.push(page);
    return page;
  }

  /** VP.CREATE, VP.ADDCX and VP.INIT, with x2APIC id `id`. */
  addVcpu(id: number): bigint {
    const tdvpr = this.#own();
    this.vcpus.push(tdvpr);
    this.host.must(TDH.vpCreate, { rcx: tdvpr, rdx: this.tdr });
    const { l2Vms = 0 } = this.#options;
    for (let i = 0; i < TDCX_PER_VCPU + 3 * l2Vms; i++) {
      this.host.must(TDH.vpAddcx, { rcx: this.#own(), rdx: tdvpr });
    }
    this.host.must(TDH.vpInit | (1 << 16), { rcx: tdvpr, rdx: 0x1000n, r8: BigInt(id) });
    return tdvpr;
  }

  /** A leaf on guest address `gpa` and level `level`. */
  on(leaf: number, gpa: number, level = 0, operands: Operands = {}, lp = 0): Operands {
    return this.host.call(leaf, { rcx: BigInt(gpa) | BigInt(level), rdx: this.tdr, ...operands }, lp);
  }

  /** Secure EPT pages for `gpa` down to the table of 4 KiB pages. */
  addTables(gpa: number, lowest = 1): void {
    for (let level = (this.#options.levels ?? 4) - 1; level >= lowest; level--) {
      const start = gpa - (gpa % (PAGE_4K * 512 ** level));
      this.on(TDH.memSeptAdd, start, level, { r8: this.#own() });
    }
  }

  /** MEM.PAGE.ADD and sixteen MR.EXTENDs of a page filled by `mul`. */
  addMeasured(gpa: number, source: number, mul: number): void {
    this.host.fill(source, mul);
    this.on(TDH.memPageAdd, gpa, 0, { r8: this.#own(), r9: BigInt(source) });
    this.host.repeat(TDH.mrExtend, { rcx: BigInt(gpa), rdx: this.tdr }, 16, { rcx: 256n });
  }

  /** Enters a vCPU; its code is 64-bit code from now on. */
  enter(lp = 0, index = 0): void {
    this.host.call(TDH.vpEnter, { rcx: this.vcpus[index]! }, lp);
    if (!this.isEntered(lp)) return;
    this.host.recorder.record({ t: 'guest_state', lp, set: LONG_MODE });
  }

  isEntered(lp = 0): boolean {
    return this.host.recorder.module.running[lp] !== undefined;
  }

  /** An exit of the vCPU on `lp`, which is entered first when it is not. Returns what came of it. */
  exit(reason: number, operands: Operands = {}, details: object = {}, lp = 0, index = 0): JsonLine {
    if (!this.isEntered(lp)) this.enter(lp, index);
    this.#rip += 16;
    const input = Object.entries(operands).filter(([, value]) => value !== 0n);
    return this.host.recorder.record({
      t: 'guest',
      lp,
      tdvpr: hex(this.vcpus[index]!),
      exit: reason,
      instr_len: 3,
      rip: hex(this.#rip),
      in: Object.fromEntries(input.map(([name, value]) => [name, hex(value!)])),
      ...details,
    });
  }

  tdcall(leaf: number, operands: Operands = {}, lp = 0): JsonLine {
    return this.exit(EXIT.TDCALL, { ...operands, rax: BigInt(leaf) }, { instr_len: 4 }, lp);
  }

  /** An exit after which the guest reads the #VE that it may have got. */
  exitAndHandle(reason: number, operands: Operands, details: object = {}): void {
    const { result, inj } = this.exit(reason, operands, details);
    const isVe = result === 'injected' && (inj as { vector: number }).vector === 20;
    if (isVe) this.tdcall(TDG.vpVeinfoGet | (2 << 16));
  }

  /** An external interrupt takes the vCPU out. */
  interrupt(lp = 0): void {
    if (this.isEntered(lp)) this.exit(EXIT.EXTERNAL_INTERRUPT, {}, { intr_info: '0x80000060' }, lp);
  }

  /** From VP.FLUSH to the TDR's PAGE.RECLAIM. `lpOf` says where each vCPU was last. */
  tearDown(lpOf: readonly number[] = []): void {
    const { host, tdr } = this;
    this.vcpus.forEach((tdvpr, i) => {
      host.call(TDH.vpFlush, { rcx: tdvpr }, lpOf[i] ?? 0);
    });
    host.call(TDH.mngVpflushdone, { rcx: tdr });
    for (const lp of host.packageLps) host.call(TDH.phymemCacheWb, {}, lp);
    host.call(TDH.mngKeyFreeid, { rcx: tdr });
    host.call(TDH.phymemPageReclaim, { rcx: tdr });
    for (const page of [...this.pages, tdr]) host.call(TDH.phymemPageReclaim, { rcx: page });
  }
}

/** TD_PARAMS as a scenario's host writes them. */
export function scenarioTdParams(options: ScenarioTdOptions): Uint8Array {
  const { attributes = 0n, xfam = 7n, configFlags = 0n, levels = 4, l2Vms = 0 } = options;
  const bytes = encodeTdParams({
    attributes,
    xfam,
    maxVcpus: 4,
    eptpControls: WRITE_BACK | (BigInt(levels - 1) << 3n),
    configFlags: configFlags | (levels === 5 ? 1n : 0n),
    tscFrequency: TSC_1_GHZ,
    mrConfigId: new Uint8Array(48).fill(1),
    mrOwner: new Uint8Array(48).fill(2),
    mrOwnerConfig: new Uint8Array(48).fill(3),
    cpuid: [],
  });
  bytes[TD_PARAMS_AT.NUM_L2_VMS] = l2Vms;
  return bytes;
}
