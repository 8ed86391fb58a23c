/** A small machine with SNP switched on, for tests of the hardware. */
import { GIB } from '../../../src/abi/address.ts';
import { genoaMachine } from '../../../src/lab/machines/genoa.ts';
import { Machine } from '../../../src/machine/machine.ts';
import { MSR } from '../../../src/machine/platform.ts';
import { SNP_COMMAND, SNP_INIT_EX } from '../../../src/machine/snp/firmware/commands.ts';
import { RMP_4K } from '../../../src/machine/snp/rmp.ts';
import type { RmpState } from '../../../src/machine/snp/rmp-instructions.ts';
import { type Snp, SYSCFG_SNP_EN } from '../../../src/machine/snp/snp.ts';

/** Where the tests keep command buffers and pages. */
export const BUFFER = 0x10_0000;
export const PAGES = 4 * GIB;

export interface SnpMachine {
  readonly machine: Machine;
  readonly snp: Snp;
  readonly update: (address: number, state?: Partial<RmpState>) => number;
  readonly command: (command: number, buffer: Uint8Array) => number;
}

export function snpMachine(options: Parameters<typeof genoaMachine>[0] = {}): SnpMachine {
  const machine = new Machine(genoaMachine({ memoryBytes: GIB, asids: 8, minSevAsid: 5, ...options }));
  const snp = machine.snp!;
  for (const lp of machine.lps) lp.wrmsr(MSR.SYSCFG, SYSCFG_SNP_EN);
  const lp = machine.lps[0]!;
  return {
    machine,
    snp,
    update: (address, state = {}) =>
      snp.rmpUpdate(lp, address, {
        assigned: false,
        pageSize: RMP_4K,
        immutable: false,
        gpa: 0,
        asid: 0,
        ...state,
      }),
    command: (command, buffer) => {
      machine.memory.write(BUFFER, buffer, 0);
      return snp.firmware.command(command, BUFFER);
    },
  };
}

/** The same with the firmware initialised. */
export function initialisedSnpMachine(options: Parameters<typeof genoaMachine>[0] = {}): SnpMachine {
  const made = snpMachine(options);
  const status = made.command(SNP_COMMAND.INIT_EX, SNP_INIT_EX.encode({ flags: 1 }));
  if (status !== 0) throw new Error(`SNP_INIT_EX: ${status}`);
  return made;
}
