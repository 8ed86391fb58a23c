import { describe, expect, it } from 'vitest';
import { TDG } from '../../../src/abi/leaves.ts';
import { R8, R9, R10, R11, RAX, RCX, RDX } from '../../../src/abi/registers.ts';
import { STATUS } from '../../../src/abi/status-codes.ts';
import { EXIT } from '../../../src/abi/vm-exit.ts';
import { createHost } from '../../../src/lab/host.ts';
import { LabTd } from '../../../src/lab/td/lab-td.ts';
import type { RunningVcpu } from '../../../src/module/guest/running-vcpu.ts';
import type { VmExit } from '../../../src/module/guest/vm-exit.ts';
import { TDCS, TDVPS, VCPU_STATE } from '../../../src/module/td/layout.ts';
import { VMCS } from '../../../src/module/td/vmcs.ts';
import type { TdxModule } from '../../../src/module/tdx-module.ts';
import { EMBEDDED_HOSTS } from '../../../src/survey/embedded/hosts.ts';

/** What the guest does in one go: changes its state, and tells why it stopped. */
type Step = (vcpu: RunningVcpu) => Partial<VmExit> & { readonly reason: number };

const NOTHING: VmExit = {
  reason: 0,
  qualification: 0n,
  linearAddress: 0n,
  physicalAddress: 0n,
  interruptionInfo: 0,
  errorCode: 0,
  instructionLength: 0,
  instructionInfo: 0,
  idtVectoringInfo: 0,
};
const EVENT = {
  VE: 0x8000_0314,
  DF: 0x8000_0b08,
  UD: 0x8000_0306,
  GP: 0x8000_0b0d,
  NMI: 0x8000_0202,
} as const;
const IN_64_BIT = { csAr: 0xa09bn, efer: 0xd01n, cr0: 0x8001_0031n } as const;

interface Playground {
  readonly module: TdxModule;
  /** Enters the vCPU and plays the steps; the last one must make it exit to the host. Returns the status of VP.ENTER. */
  readonly play: (...steps: readonly Step[]) => bigint;
  readonly td: LabTd;
  readonly host: BigUint64Array;
  /** The vCPU of the last step. */
  readonly vcpu: () => RunningVcpu;
}

async function playground(attributes = 0n): Promise<Playground> {
  const host = createHost(EMBEDDED_HOSTS.get('spr-256g-2node')!.machine, { module: '1.5.25' });
  await host.kernel.boot();
  const module = host.machine.seam.module as TdxModule;
  const td = LabTd.build(host.kernel, { attributes });
  const vcpu = td.vcpus[0]!;
  const cpu = td.cpuOf(vcpu);
  let last: RunningVcpu | undefined;
  return {
    module,
    td,
    host: cpu.lp.regs.q,
    vcpu: () => last!,
    play: (...steps) => {
      const left = [...steps];
      module.guestRunner = {
        run: (running) => {
          last = running;
          const step = left.shift();
          if (step === undefined) throw new Error('the guest goes on after its last step');
          return { ...NOTHING, ...step(running) };
        },
      };
      const status = td.enter(vcpu, cpu);
      expect(left).toEqual([]);
      return status;
    },
  };
}

/** The instruction at RIP exits. */
function instruction(reason: number, more: Partial<VmExit> = {}): Step {
  return () => ({ reason, instructionLength: 2, ...more });
}

function expectEvent({ vmcs }: RunningVcpu, event: number): void {
  expect(vmcs.read32(VMCS.ENTRY_INTERRUPTION_INFO)).toBe(event);
}

const interrupted: Step = () => ({ reason: EXIT.EXTERNAL_INTERRUPT, interruptionInfo: 0x8000_00ec });

function in64BitMode({ vmcs }: RunningVcpu): void {
  vmcs.write(VMCS.GUEST_CS_AR, IN_64_BIT.csAr);
  vmcs.write(VMCS.GUEST_EFER, IN_64_BIT.efer);
  vmcs.write(VMCS.GUEST_CR0, IN_64_BIT.cr0);
}

function tdcall(leaf: number, operands: Readonly<Record<number, bigint>> = {}): Step {
  return (vcpu) => {
    in64BitMode(vcpu);
    vcpu.regs.q[RAX] = BigInt(leaf);
    for (const [register, value] of Object.entries(operands)) vcpu.regs.q[Number(register)] = value;
    return { reason: EXIT.TDCALL, instructionLength: 4 };
  };
}

describe('a TD that exits', () => {
  it('begins at the reset vector and goes to the host for an interrupt without moving', async () => {
    const { play, vcpu, module, host } = await playground();
    const status = play((running) => {
      expect(running.vmcs.read(VMCS.GUEST_RIP)).toBe(0xffff_fff0n);
      expect(module.lpsInTd).toBe(1);
      running.regs.q[R8] = 0x1234n;
      return interrupted(running);
    });
    expect(status).toBe(BigInt(EXIT.EXTERNAL_INTERRUPT));
    expect(host[R9]).toBe(0x8000_00ecn);
    expect(host[R8]).toBe(0n);
    expect(vcpu().vmcs.read(VMCS.GUEST_RIP)).toBe(0xffff_fff0n);
    expect(vcpu().tdvps.u8(TDVPS.VCPU_STATE)).toBe(VCPU_STATE.READY);
    expect(module.lpsInTd).toBe(0);
    expect(vcpu().tdcs.u16(TDCS.REFCOUNT) + vcpu().tdcs.u16(TDCS.REFCOUNT + 2)).toBe(0);
    play((running) => {
      expect(running.regs.q[R8]).toBe(0x1234n);
      return interrupted(running);
    });
  });

  it('takes a #VE that it can ask about once, and a #DF for a second one before that', async () => {
    const { play } = await playground();
    play(
      instruction(EXIT.HLT),
      (vcpu) => {
        expectEvent(vcpu, EVENT.VE);
        return instruction(EXIT.WBINVD)(vcpu);
      },
      (vcpu) => {
        expectEvent(vcpu, EVENT.DF);
        return tdcall(TDG.vpVeinfoGet)(vcpu);
      },
      (vcpu) => {
        expect([...vcpu.regs.q].slice(RAX, RCX + 1)).toEqual([STATUS.TDX_SUCCESS, BigInt(EXIT.HLT)]);
        expect(vcpu.vmcs.read(VMCS.GUEST_RIP)).toBe(0xffff_fff4n);
        return tdcall(TDG.vpVeinfoGet)(vcpu);
      },
      (vcpu) => {
        expect(vcpu.regs.q[RAX]).toBe(STATUS.TDX_NO_VALID_VE_INFO);
        return interrupted(vcpu);
      },
    );
  });

  it('gets an exception for what a TD cannot do', async () => {
    const { play } = await playground();
    play(
      instruction(EXIT.VMLAUNCH),
      (vcpu) => {
        expectEvent(vcpu, EVENT.UD);
        return instruction(EXIT.TDCALL)(vcpu); // not in 64-bit code
      },
      (vcpu) => {
        expectEvent(vcpu, EVENT.GP);
        expect(vcpu.vmcs.read(VMCS.GUEST_RIP)).toBe(0xffff_fff0n);
        return interrupted(vcpu);
      },
    );
  });

  it('is never entered again after a triple fault', async () => {
    const { play, vcpu } = await playground();
    const status = play(instruction(EXIT.TRIPLE_FAULT));
    expect(status).toBe(STATUS.TDX_NON_RECOVERABLE_VCPU | BigInt(EXIT.TRIPLE_FAULT));
    expect(vcpu().tdvps.u8(TDVPS.VCPU_STATE)).toBe(VCPU_STATE.DISABLED);
    expect(play()).toBe(STATUS.TDX_VCPU_STATE_INCORRECT | BigInt(VCPU_STATE.DISABLED));
  });

  it('and its debugger hear of what would end another TD', async () => {
    const unexpected = 52;
    const production = await playground();
    expect(production.play(instruction(unexpected))).toBe(STATUS.TDX_NON_RECOVERABLE_TD | BigInt(unexpected));
    const debug = await playground(1n);
    expect(debug.play(instruction(unexpected))).toBe(BigInt(unexpected));
  });

  it('hands the host the registers of its mask and takes them back', async () => {
    const { play, host } = await playground();
    const mask = (1n << BigInt(R10)) | (1n << BigInt(R11));
    const exit = play(tdcall(TDG.vpVmcall, { [RCX]: mask, [RDX]: 5n, [R10]: 0n, [R11]: 42n }));
    expect(exit).toBe(BigInt(EXIT.TDCALL));
    expect([host[RCX], host[RDX], host[R10], host[R11]]).toEqual([mask, 0n, 0n, 42n]);
    host[R10] = 7n;
    host[R11] = 8n;
    host[RDX] = 9n;
    play((vcpu) => {
      const { q } = vcpu.regs;
      expect([q[RAX], q[RCX], q[RDX], q[R10], q[R11]]).toEqual([0n, mask, 5n, 7n, 8n]);
      return interrupted(vcpu);
    });
  });

  it('takes an NMI from the host as soon as it can, but not before it has read its #VE', async () => {
    const { play } = await playground();
    const nmiWindow = instruction(EXIT.NMI_WINDOW, { instructionLength: 0 });
    const wantsWindow = (vcpu: RunningVcpu): boolean =>
      (vcpu.vmcs.read32(VMCS.PROCBASED_CTLS) & (1 << 22)) !== 0;
    play(
      (vcpu) => {
        vcpu.tdvps.setU8(TDVPS.PEND_NMI, 1);
        return instruction(EXIT.HLT)(vcpu);
      },
      (vcpu) => {
        expect(wantsWindow(vcpu)).toBe(false);
        return tdcall(TDG.vpVeinfoGet)(vcpu);
      },
      (vcpu) => {
        expect(wantsWindow(vcpu)).toBe(true);
        return nmiWindow(vcpu);
      },
      (vcpu) => {
        expectEvent(vcpu, EVENT.NMI);
        expect(wantsWindow(vcpu)).toBe(false);
        return interrupted(vcpu);
      },
    );
  });

  it('and is not stepped by page faults: the host must map what faults again and again', async () => {
    const { play, td, host } = await playground();
    const gpa = 0x7000n;
    const fault: Step = () => ({
      reason: EXIT.EPT_VIOLATION,
      qualification: 2n,
      physicalAddress: gpa | 0x123n,
    });
    for (let i = 0; i < 7; i++) expect(play(fault)).toBe(BigInt(EXIT.EPT_VIOLATION));
    host.fill(0n);
    // Refused without running the guest
    expect(play()).toBe(BigInt(EXIT.EPT_VIOLATION));
    expect([host[RCX], host[R8]]).toEqual([2n, gpa]);
    td.augment(Number(gpa));
    expect(play(interrupted)).toBe(BigInt(EXIT.EXTERNAL_INTERRUPT));
  });
});
