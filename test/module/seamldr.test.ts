import { describe, expect, it } from 'vitest';
import { GIB, PAGE_4K } from '../../src/abi/address.ts';
import { TDH } from '../../src/abi/leaves.ts';
import { RAX, RCX, RDX } from '../../src/abi/registers.ts';
import { decodeSeamldrInfo, SEAMLDR_INFO_SIZE } from '../../src/abi/seamldr-info.ts';
import { encodeSeamldrParams, SEAMLDR_SCENARIO, type SeamldrParams } from '../../src/abi/seamldr-params.ts';
import { SEAMLDR_STATUS } from '../../src/abi/seamldr-status.ts';
import { STATUS } from '../../src/abi/status-codes.ts';
import { moduleImage } from '../../src/module/module-image.ts';
import { findRelease } from '../../src/module/releases.ts';
import { SeamLoader } from '../../src/module/seamldr.ts';
import type { TdxModule } from '../../src/module/tdx-module.ts';
import type { ModuleMachine } from '../support/module-machine.ts';
import { initialise, readyModule } from '../support/ready-module.ts';

const INFO = 1n << 63n;
const INSTALL = INFO | 1n;
const PARAMS = 0x50_0000;
const SIGSTRUCT = 0x50_1000;
const PAGE = 0x50_2000;

interface LoaderHost extends ModuleMachine {
  readonly loader: SeamLoader;
  readonly loaderCall: (rax: bigint, rcx: number | bigint, lp?: number) => { rax: bigint; rdx: bigint };
  /** INSTALL on every LP with these parameters; the answers in order. */
  readonly install: (params?: Partial<SeamldrParams>) => { rax: bigint; rdx: bigint }[];
}

function loaderHost(version = '1.5.25'): LoaderHost {
  const host = readyModule();
  const { machine } = host;
  const loader = new SeamLoader(machine, '1.5.7', 3);
  machine.seam.loader = loader;
  const image = moduleImage(findRelease(version)!);
  machine.memory.write(SIGSTRUCT, image.sigstruct, 0);
  machine.memory.write(PAGE, image.pages[0]!, 0);
  const loaderCall: LoaderHost['loaderCall'] = (rax, rcx, lp = 0) => {
    const cpu = machine.lps[lp]!;
    cpu.vmxOperation = true;
    cpu.regs.q[RAX] = rax;
    cpu.regs.q[RCX] = BigInt(rcx);
    expect(cpu.seamcall()).toBe(true);
    return { rax: cpu.regs.q[RAX]!, rdx: cpu.regs.q[RDX]! };
  };
  const install: LoaderHost['install'] = (params = {}) => {
    const complete = {
      version: 0,
      scenario: SEAMLDR_SCENARIO.load,
      sigstruct: BigInt(SIGSTRUCT),
      modulePages: [BigInt(PAGE)],
      ...params,
    };
    machine.memory.write(PARAMS, encodeSeamldrParams(complete), 0);
    return machine.lps.map((lp) => loaderCall(INSTALL, PARAMS, lp.index));
  };
  return { ...host, loader, loaderCall, install };
}

const last = <T>(list: readonly T[]): T => list.at(-1)!;

describe('SEAMLDR.INFO', () => {
  it('tells of the loader and of the module', () => {
    const { machine, loaderCall } = loaderHost();
    expect(loaderCall(INFO, PARAMS).rax).toBe(0n);
    const info = decodeSeamldrInfo(machine.memory.read(PARAMS, SEAMLDR_INFO_SIZE, 0));
    expect(info).toMatchObject({
      major: 1,
      minor: 5,
      update: 7,
      vendorId: 0x8086,
      remainingUpdates: 3,
      seamReady: true,
    });
  });

  it('refuses buffers that are misaligned, private or in the SEAM range, and unknown leaves', () => {
    const { loaderCall } = loaderHost();
    const bad = SEAMLDR_STATUS.PSEAMLDR_EBADPARAM;
    expect(loaderCall(INFO, PARAMS + 128).rax).toBe(bad);
    expect(loaderCall(INFO, BigInt(PARAMS) | (33n << 46n)).rax).toBe(bad);
    expect(loaderCall(INFO, 15 * GIB).rax).toBe(bad);
    expect(loaderCall(INFO | 9n, PARAMS).rax).toBe(bad);
  });
});

describe('SEAMLDR.INSTALL', () => {
  it('takes effect when every LP has called', () => {
    const host = loaderHost('1.5.16');
    const { machine, install, loader } = host;
    expect(install().map(({ rax }) => rax)).toEqual([0n, 0n, 0n, 0n]);
    const module = machine.seam.module as TdxModule;
    expect([module.version, module.sysState, loader.remainingUpdates]).toEqual([
      '1.5.16',
      'SYSINIT_PENDING',
      2,
    ]);
    expect(() => initialise({ ...host, module })).not.toThrow();
  });

  it('puts the module before out of reach meanwhile, and answers each LP once', () => {
    const { machine, loaderCall } = loaderHost();
    loaderCall(INSTALL, PARAMS, 0);
    machine.lps[1]!.vmxOperation = true;
    machine.lps[1]!.regs.q[RAX] = BigInt(TDH.sysRd);
    expect(machine.lps[1]!.seamcall()).toBe(false);
    expect(loaderCall(INSTALL, PARAMS, 0)).toEqual({ rax: SEAMLDR_STATUS.PSEAMLDR_EBADCALL, rdx: 0n });
  });

  it('keeps hand-off data in an update and drops them in a load', () => {
    const host = loaderHost();
    host.status(TDH.sysShutdown, { rcx: 1n });
    expect(last(host.install({ scenario: SEAMLDR_SCENARIO.update })).rax).toBe(0n);
    const updated = initialise({ ...host, module: host.machine.seam.module as TdxModule });
    expect(updated.status(TDH.sysUpdate)).toBe(0n);
    expect(updated.status(TDH.sysShutdown, { rcx: 1n })).toBe(0n);
    expect(last(host.install()).rax).toBe(0n);
    const loaded = initialise({ ...host, module: host.machine.seam.module as TdxModule });
    expect(loaded.status(TDH.sysUpdate)).toBe(STATUS.TDX_SYS_INVALID_HANDOFF);
  });

  it.each([
    ['another structure version', { version: 1 }],
    ['an unknown scenario', { scenario: 2 }],
    ['a misaligned page', { modulePages: [BigInt(PAGE) + 64n] }],
    ['a signature in the SEAM range', { sigstruct: BigInt(15 * GIB) }],
  ])('refuses %s and brings the module before back', (_, params) => {
    const { machine, module, install } = loaderHost();
    expect(last(install(params))).toEqual({ rax: SEAMLDR_STATUS.PSEAMLDR_EBADPARAM, rdx: 0n });
    expect(machine.seam.module).toBe(module);
  });

  it('refuses a statement that is none, CPUs it does not know, and more updates than there may be', () => {
    const { machine, module, install, loader } = loaderHost();
    machine.memory.write(SIGSTRUCT, new Uint8Array(PAGE_4K), 0);
    expect(last(install()).rax).toBe(SEAMLDR_STATUS.PSEAMLDR_EBADSIG);
    machine.memory.write(SIGSTRUCT, moduleImage(findRelease('1.5.13')!).sigstruct, 0);
    machine.seam.mcheck = { ...machine.seam.mcheck, packageFms: [0xa06d1] };
    expect(last(install()).rax).toBe(SEAMLDR_STATUS.PSEAMLDR_EUNSUPCPU);
    machine.seam.mcheck = { ...machine.seam.mcheck, packageFms: [0x806f8] };
    loader.remainingUpdates = 0;
    expect(last(install()).rax).toBe(SEAMLDR_STATUS.PSEAMLDR_EUNSPECERR);
    loader.remainingUpdates = 1;
    machine.entropy.exhausted = true;
    expect(last(install()).rax).toBe(SEAMLDR_STATUS.PSEAMLDR_ENOENTROPY);
    expect(machine.seam.module).toBe(module);
  });

  it('leaves no module behind when the pages or the hand-off data turn out bad', () => {
    const damaged = loaderHost();
    damaged.machine.memory.write(PAGE + 100, new Uint8Array([1]), 0);
    expect(last(damaged.install())).toEqual({ rax: SEAMLDR_STATUS.PSEAMLDR_EBADHASH, rdx: 1n });
    expect(damaged.machine.seam.module).toBeNull();
    const without = loaderHost();
    expect(last(without.install({ scenario: SEAMLDR_SCENARIO.update })).rax).toBe(
      SEAMLDR_STATUS.PSEAMLDR_EBADHANDOFF,
    );
    expect(last(without.install({ scenario: SEAMLDR_SCENARIO.update })).rax).toBe(
      SEAMLDR_STATUS.PSEAMLDR_EBADPARAM,
    );
  });
});
