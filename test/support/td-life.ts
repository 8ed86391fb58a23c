/** The life of a TD call by call, each of which may find that something else happened to the TD meanwhile. */
import { PAGE_4K } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { encodeTdParams } from '../../src/abi/td-params.ts';
import type { Lockstep } from './lockstep.ts';

const TD_PARAMS = encodeTdParams({
  attributes: 1n << 28n,
  xfam: 3n,
  maxVcpus: 2,
  eptpControls: 6n | (3n << 3n),
  configFlags: 4n,
  tscFrequency: 40,
  mrConfigId: new Uint8Array(48),
  mrOwner: new Uint8Array(48),
  mrOwnerConfig: new Uint8Array(48),
  cpuid: [],
});
const CONTROL_PAGES = 6;

/** Pages and guest addresses that the life has used so far, for others to meddle with. */
export interface TdTraces {
  readonly addresses: bigint[];
}

/** From MNG.CREATE to the reclaim of the TDR on two packages, whose first CPUs are 0 and 2. Yields after every call. */
export async function* tdLife(hosts: Lockstep, traces: TdTraces): AsyncGenerator<void, void, void> {
  const page = async (): Promise<bigint> => {
    const address = BigInt(await hosts.page());
    traces.addresses.push(address);
    return address;
  };
  const source = await hosts.page();
  const fill = (bytes: Uint8Array): Promise<void> =>
    hosts.each(({ machine }) => machine.lps[0]!.store(source, bytes));
  const keyId = BigInt(await hosts.each(({ kernel }) => kernel.keyIds.alloc()));
  const tdr = await page();
  const used: bigint[] = [];
  const fresh = async (): Promise<bigint> => {
    const address = await page();
    used.push(address);
    return address;
  };

  yield void (await hosts.call(0, TDH.mngCreate, tdr, keyId));
  for (const cpu of [0, 2]) yield void (await hosts.call(cpu, TDH.mngKeyConfig, tdr));
  for (let i = 0; i < CONTROL_PAGES; i++) yield void (await hosts.call(0, TDH.mngAddcx, await fresh(), tdr));
  await fill(TD_PARAMS);
  yield void (await hosts.call(0, TDH.mngInit, tdr, BigInt(source)));
  for (let level = 3n; level > 0n; level--) {
    yield void (await hosts.call(0, TDH.memSeptAdd, level, tdr, await fresh()));
  }
  await fill(new Uint8Array(PAGE_4K).fill(Number(keyId)));
  yield void (await hosts.call(0, TDH.memPageAdd, 0x1000n, tdr, await fresh(), BigInt(source)));
  yield void (await hosts.call(0, TDH.mrExtend, 0x1000n, tdr));
  const tdvpr = await fresh();
  yield void (await hosts.call(0, TDH.vpCreate, tdvpr, tdr));
  for (let i = 1; i < CONTROL_PAGES; i++) yield void (await hosts.call(0, TDH.vpAddcx, await fresh(), tdvpr));
  yield void (await hosts.call(1, TDH.vpInit, tdvpr));
  yield void (await hosts.call(0, TDH.mrExtend, 0x1100n, tdr));
  yield void (await hosts.call(0, TDH.mrFinalize, tdr));
  for (let gpa = 0x2000n; gpa < 0x8000n; gpa += 0x1000n) {
    yield void (await hosts.call(0, TDH.memPageAug, gpa, tdr, await fresh()));
    yield void (await hosts.call(1, TDH.vpEnter, tdvpr));
  }
  yield void (await hosts.call(0, TDH.memRangeBlock, 0x3000n, tdr));
  yield void (await hosts.call(0, TDH.memTrack, tdr));
  yield void (await hosts.call(0, TDH.memPageRemove, 0x3000n, tdr));
  yield void (await hosts.call(1, TDH.vpFlush, tdvpr));
  yield void (await hosts.call(0, TDH.mngVpflushdone, tdr));
  for (const cpu of [0, 2]) yield void (await hosts.call(cpu, TDH.phymemCacheWb));
  yield void (await hosts.call(0, TDH.mngKeyFreeid, tdr));
  for (const address of [...used, tdr]) yield void (await hosts.call(0, TDH.phymemPageReclaim, address));
}
