/** Runs a program on a VM in one order of turns, with everything watched. */
import { PAGE_4K } from '../../../src/abi/address.ts';
import { KernelError } from '../../../src/abi/errno.ts';
import type { HostKernel } from '../../../src/kernel/host-kernel.ts';
import { startProcess } from '../../../src/kernel/process/process.ts';
import { UserFault } from '../../../src/kernel/process/system-calls.ts';
import type { Task } from '../../../src/kernel/process/task.ts';
import type { Vm } from '../../../src/kvm/vm.ts';
import type { VmFile } from '../../../src/kvm/vm-file.ts';
import { setGuestScript } from '../../../src/lab/kvm-host.ts';
import { ownershipAccount } from '../../../src/lab/ownership/account.ts';
import { OwnershipWatch } from '../../../src/lab/ownership/ownership-watch.ts';
import type { Scheduler } from '../../../src/lab/schedule/scheduler.ts';
import type { GuestSlot } from '../../../src/vmm/vm/guest-memory.ts';
import type { GuestVm } from '../../../src/vmm/vm/guest-vm.ts';
import { guestScript, SECRET } from './guest-script.ts';
import { runHostStep } from './host-steps.ts';
import { Ledger } from './ledger.ts';
import type { Program } from './program.ts';
import { serveVcpu } from './serve-vcpu.ts';
import { BASE, buildVm, type RaceHost, type Subject } from './subjects.ts';

/** What takes part in one race. */
export interface Race {
  readonly host: RaceHost;
  readonly subject: Subject;
  readonly program: Program;
  readonly task: Task;
  readonly vm: GuestVm;
  /** The kernel's own record. */
  readonly kernelVm: Vm;
  readonly slot: GuestSlot;
  readonly ledger: Ledger;
  /** Threads of the vCPUs, by index. */
  readonly threads: Task[];
  /** Scripts that have come to their end, with what went wrong. */
  readonly finished: Map<number, Error | null>;
  /** Why a thread of a vCPU ended before its guest had. */
  readonly gaveUp: string[];
  /** Writes begun, by whomever. */
  counter: number;
}

/** What came of a race. */
export interface Outcome {
  /** Reads whose result was certain. */
  readonly firm: number;
  readonly finished: number;
  readonly gaveUp: readonly string[];
  readonly looks: number;
}

/** A change of the host that breaks it on purpose, made when the VM is built. */
export type Sabotage = (race: Race) => void;

/**
 * Runs `program` with the turns that `scheduler` gives. Throws OwnershipError, or Error for lost data, threads that wait
 * for each other, and accounts that do not balance.
 */
export async function runRace(
  scheduler: Scheduler,
  host: RaceHost,
  subject: Subject,
  program: Program,
  sabotage: Sabotage = () => undefined,
): Promise<Outcome> {
  const { kernel } = host;
  const before = ownershipAccount(host);
  const task = startProcess(kernel);
  const vm = await buildVm(task, subject, program.guests.length);
  const kernelVm = (task.process.files.get(vm.fd).object as VmFile).vm;
  const slot = vm.slots.find(({ start }) => start === BASE)!;
  const race: Race = {
    host,
    subject,
    program,
    task,
    vm,
    kernelVm,
    slot,
    ledger: new Ledger(subject.hasOneMemory),
    threads: program.guests.map((_, i) => task.thread(i + 1)),
    finished: new Map(),
    gaveUp: [],
    counter: 0,
  };
  for (const vcpu of vm.vcpus) {
    setGuestScript(host.guests, task, vcpu.fd, guestScript(race, vcpu.index));
  }
  host.guests.budget = program.budget;
  sabotage(race);
  const watch = new OwnershipWatch({
    kernel,
    vms: [kernelVm],
    processes: [task.process],
    secret: SECRET,
  });
  await runTasks(scheduler, race, watch);
  host.guests.budget = Number.POSITIVE_INFINITY;
  watch.check();
  await task.exit();
  watch.check();
  expectBalance(before, ownershipAccount(host));
  return { firm: race.ledger.firm, finished: race.finished.size, gaveUp: race.gaveUp, looks: watch.looks };
}

async function runTasks(scheduler: Scheduler, race: Race, watch: OwnershipWatch): Promise<void> {
  const { kernel } = race.host;
  const results: Promise<void>[] = [];
  kernel.schedule = scheduler.point;
  scheduler.observer = () => watch.check();
  try {
    for (const { index } of race.vm.vcpus) {
      results.push(scheduler.start(`vcpu ${index}`, () => serveVcpu(race, index)));
    }
    for (const [i, steps] of race.program.hosts.entries()) {
      const thread = race.task.thread(0);
      results.push(
        scheduler.start(`host ${i}`, async () => {
          for (const step of steps) await tolerating(() => runHostStep(race, thread, i, step));
        }),
      );
    }
    await scheduler.run();
    await Promise.all(results);
    await bringCpusBack(kernel);
  } finally {
    kernel.schedule = null;
    scheduler.observer = null;
  }
}

/** User space is told when something cannot be; nothing follows from that. */
async function tolerating(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof KernelError) && !(error instanceof UserFault)) throw error;
  }
}

async function bringCpusBack(kernel: HostKernel): Promise<void> {
  for (const cpu of kernel.cpus) if (!cpu.online) await kernel.cpuOnline(cpu.index);
}

function expectBalance(before: unknown, after: unknown): void {
  const [was, is] = [JSON.stringify(before), JSON.stringify(after)];
  if (was !== is) throw new Error(`accounts do not balance: ${was} before, ${is} after`);
}

/** Guest address of a page. */
export function gpaOf(page: number): number {
  return BASE + page * PAGE_4K;
}
