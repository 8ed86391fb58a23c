/** Builds a TD for a guest program, runs its vCPUs in turn until each is done, and tears it down. */
import { hex, PAGE_4K } from '../../abi/address.ts';
import { R10, R11, RAX } from '../../abi/registers.ts';
import type { TdxModule } from '../../module/tdx-module.ts';
import type { GuestProgram } from '../guest/program.ts';
import { ScriptedGuests } from '../guest/scripted-guests.ts';
import type { Host } from '../host.ts';
import { LabTd, type LabVcpu } from './lab-td.ts';
import { decodeTdExit, GHCI, type TdExit } from './td-exit.ts';

/** Something in the life of a TD, for whoever watches. @public */
export interface TdEvent {
  /** Virtual nanoseconds. */
  readonly timeNs: number;
  readonly who: string;
  readonly text: string;
}

/** @public */
export interface ProgramRun {
  /** Every vCPU's script has returned. */
  readonly finished: boolean;
  readonly entries: number;
  readonly seamcalls: number;
  /** Pages the TD had, control pages included. */
  readonly pages: number;
}

/** TD entries after which a program that does not come to an end is stopped. */
const MAX_ENTRIES = 100_000;

/** Runs `program` on a brought-up host. `keep` leaves the TD standing at the end. Throws Error naming a failed leaf. @public */
export function runProgram(
  { machine, kernel }: Host,
  program: GuestProgram,
  watch: (event: TdEvent) => void,
  keep = false,
): ProgramRun {
  const tell = (who: string, text: string): void => watch({ timeNs: machine.clock.nowNs, who, text });
  const before = machine.seam.calls;
  const guests = new ScriptedGuests();
  (machine.seam.module as TdxModule).guestRunner = guests;
  const td = LabTd.build(kernel, { vcpus: program.vcpus ?? 1, pages: program.pages ?? [] });
  tell(
    'host',
    `TD built: TDR ${hex(td.tdr)}, KeyID ${td.keyId}, ${td.vcpus.length} vCPU, ${td.mapped.size} pages measured`,
  );
  for (const vcpu of td.vcpus) {
    guests.set(vcpu.tdvpr, (cpu) => program.run(cpu, (text) => tell(`vCPU ${vcpu.index}`, text)));
  }
  const entries = runVcpus(td, guests, tell);
  const finished = td.vcpus.every((vcpu) => guests.isDone(vcpu.tdvpr));
  const pages = td.pageCount;
  if (!keep) {
    td.destroy();
    tell('host', `TD destroyed: ${pages} pages of ${PAGE_4K / 1024} KiB and KeyID ${td.keyId} reclaimed`);
  }
  return { finished, entries, seamcalls: machine.seam.calls - before, pages };
}

/** Enters the vCPUs in turn, each on a processor of its own, until all are done or none can go on. */
function runVcpus(td: LabTd, guests: ScriptedGuests, tell: (who: string, text: string) => void): number {
  let entries = 0;
  let running: readonly LabVcpu[] = td.vcpus;
  while (running.length > 0 && entries < MAX_ENTRIES) {
    running = running.filter((vcpu) => {
      const cpu = td.cpuOf(vcpu);
      const status = td.enter(vcpu, cpu);
      entries++;
      const exit = decodeTdExit(status, cpu.lp.regs.q);
      if (guests.isDone(vcpu.tdvpr)) {
        tell(`vCPU ${vcpu.index}`, 'done');
        return false;
      }
      tell(`vCPU ${vcpu.index}`, exit.text);
      return answer(td, cpu.lp.regs.q, exit);
    });
  }
  return entries;
}

/** What the host does about an exit; false when the vCPU cannot go on. */
function answer(td: LabTd, q: BigUint64Array, exit: TdExit): boolean {
  q[RAX] = 0n;
  switch (exit.kind) {
    case 'ept-violation':
      // A guest that uses a page before it accepts it would come back for ever.
      if (exit.pending) return false;
      if (!td.mapped.has(exit.gpa)) td.augment(exit.gpa);
      return true;
    case 'tdvmcall':
      q[R10] = exit.func === -1 ? 1n : 0n;
      q[R11] = 0n;
      return exit.func !== GHCI.REPORT_FATAL_ERROR;
    case 'interrupt':
      return true;
    default:
      return false;
  }
}
