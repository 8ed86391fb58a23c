/** A processor that runs guests without a TDX module: second stage and intercepts are those of the guest context. */
import { EXIT } from '../../abi/vm-exit.ts';
import type { GuestAccess, GuestContext, GuestEvent, GuestExit } from '../../machine/guest-code.ts';
import {
  ACCESS_LENGTH,
  FIRST_INSTRUCTION,
  lengthOf,
  loadRegisters,
  pageParts,
  QUALIFICATION,
} from './action-access.ts';
import { type GuestAction, GuestCpu, GuestException } from './flow.ts';
import type { Performed, ScriptProcessor } from './script-player.ts';

/** @internal */
export const CONTEXT_PROCESSOR: ScriptProcessor<GuestContext, GuestExit> = {
  indexOf: ({ index }) => index,
  registers: ({ regs }) => regs.q,
  rip: ({ rip }) => rip,

  begin(context) {
    context.rip = FIRST_INSTRUCTION;
  },

  takeEvent(context) {
    const { inject } = context;
    if (inject === null) return null;
    context.inject = null;
    return new GuestException(inject.vector, inject.errorCode);
  },

  takeEmulated(context) {
    const { emulated } = context;
    context.emulated = null;
    return emulated;
  },

  perform(context, action) {
    switch (action.kind) {
      case 'read':
        return readMemory(context, action);
      case 'write':
        return writeMemory(context, action);
      case 'technology':
        loadRegisters(context.regs.q, action.registers);
        return performed(context, context.instruction(action.name, context.regs));
      case 'instruction': {
        loadRegisters(context.regs.q, action.registers);
        const { reason, qualification = 0n, lengthBytes } = action;
        const exit: GuestExit = { reason, qualification, gpa: 0, instructionLengthBytes: lengthBytes };
        const intercepted = context.intercepts(exit);
        if (intercepted === true) return exit;
        return performed(context, intercepted === false ? 'done' : intercepted);
      }
    }
  },

  advance(context, action) {
    context.rip += BigInt(lengthOf(action));
  },

  halt: new GuestCpu(0).hlt().next().value as GuestAction,
  interrupt: () => ({
    reason: EXIT.EXTERNAL_INTERRUPT,
    qualification: 0n,
    gpa: 0,
    instructionLengthBytes: 0,
  }),
};

function performed(context: GuestContext, outcome: GuestExit | GuestEvent | 'done'): Performed<GuestExit> {
  if (outcome === 'done') return { answer: context.regs.q.slice() };
  if ('reason' in outcome) return outcome;
  context.inject = outcome;
  return 'event';
}

function readMemory(
  context: GuestContext,
  { gpa, lengthBytes, delivery }: Extract<GuestAction, { kind: 'read' }>,
): Performed<GuestExit> {
  const bytes = new Uint8Array(lengthBytes);
  for (const { at, size, done } of pageParts(gpa, lengthBytes)) {
    const where = context.translate(at, 'read');
    if (!('address' in where)) {
      const access = { isWrite: false, lengthBytes: size, ...(delivery && { isEventDelivery: true }) };
      return faulted(context, where, access, size === lengthBytes);
    }
    bytes.set(context.lp.machine.memory.read(where.address, size, where.keyId), done);
  }
  return { answer: bytes };
}

function writeMemory(
  context: GuestContext,
  { gpa, bytes }: Extract<GuestAction, { kind: 'write' }>,
): Performed<GuestExit> {
  for (const { at, size, done } of pageParts(gpa, bytes.length)) {
    const where = context.translate(at, 'write');
    if (!('address' in where)) {
      const access = { isWrite: true, lengthBytes: size, bytes };
      return faulted(context, where, access, size === bytes.length);
    }
    context.lp.machine.memory.write(where.address, bytes.subarray(done, done + size), where.keyId);
  }
  return { answer: bytes };
}

/** A fault of the second stage, with what a decoder sees of the access. One that crosses a page cannot be emulated. */
function faulted(
  context: GuestContext,
  outcome: GuestExit | GuestEvent,
  access: GuestAccess,
  isWithinPage: boolean,
): Performed<GuestExit> {
  if (!('reason' in outcome)) return performed(context, outcome);
  const qualification =
    outcome.qualification |
    QUALIFICATION.linear |
    (access.isWrite ? QUALIFICATION.write : QUALIFICATION.read);
  const exit = { ...outcome, qualification, instructionLengthBytes: ACCESS_LENGTH };
  return isWithinPage ? { ...exit, access } : exit;
}
