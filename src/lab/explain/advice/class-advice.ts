/** What holds for every status of a class; used where a status has no advice of its own. */
import type { Recovery } from './advice.ts';

/** A class of statuses in words. @internal */
export interface ClassAdvice {
  /** What the class is about: completes "A status about ...". */
  readonly about: string;
  readonly recovery: Recovery;
  readonly cause: string;
  readonly remedy: string;
}

const ORDER = 'Check the order of the calls against the state of the object.';

/** By class code (bits 47:40 of a status). @internal */
export const CLASS_ADVICE: Readonly<Record<number, ClassAdvice>> = {
  0: {
    about: 'the call as a whole',
    recovery: 'td',
    cause: 'The TD or the call could not go on.',
    remedy: 'Look at the exit reason in the low bits.',
  },
  1: {
    about: 'an operand',
    recovery: 'input',
    cause: 'An operand has a value that the leaf does not take.',
    remedy: 'Correct the operand that the detail names.',
  },
  2: {
    about: 'a busy resource',
    recovery: 'retry',
    cause: 'Another processor holds the object.',
    remedy: 'Repeat; serialise the callers when it persists.',
  },
  3: {
    about: 'the type or owner of a page',
    recovery: 'input',
    cause: 'The page is not what the leaf works on.',
    remedy: 'Ask TDH.PHYMEM.PAGE.RDMD for its type and owner.',
  },
  4: {
    about: 'things that depend on the object',
    recovery: 'step',
    cause: 'Something still depends on the object.',
    remedy: 'Remove the dependents first.',
  },
  5: {
    about: 'the state of the module',
    recovery: 'step',
    cause: 'The module is not at the step of its initialisation that the leaf belongs to.',
    remedy: ORDER,
  },
  6: {
    about: 'the state of the TD',
    recovery: 'step',
    cause: 'The TD is not at the point of its life that the leaf belongs to.',
    remedy: ORDER,
  },
  7: {
    about: 'the state of the VCPU',
    recovery: 'step',
    cause: 'The VCPU is not in a state that the leaf works on.',
    remedy: ORDER,
  },
  8: {
    about: 'KeyIDs and encryption keys',
    recovery: 'step',
    cause: 'Keys were configured, flushed or freed out of order.',
    remedy: ORDER,
  },
  9: {
    about: 'the platform the module found',
    recovery: 'firmware',
    cause: 'BIOS, microcode or CPU are not as the module requires.',
    remedy: 'Load the BIOS defaults, enable TDX again, update BIOS and microcode.',
  },
  10: {
    about: 'TDMRs, PAMTs and CMRs',
    recovery: 'input',
    cause: 'The memory passed to TDH.SYS.CONFIG breaks a rule.',
    remedy: 'Compare TDMRs, reserved areas and PAMTs with the CMRs; `tdxlab plan` does so.',
  },
  11: {
    about: 'the secure EPT',
    recovery: 'step',
    cause: 'The entry for the guest address is not as the leaf expects.',
    remedy: 'RCX and RDX of the answer hold the entry, its level and its state.',
  },
  12: {
    about: 'metadata fields',
    recovery: 'input',
    cause: 'A field identifier, value or list of fields is not accepted.',
    remedy: 'Decode the field identifier, and check that this release has the field.',
  },
  13: {
    about: 'service TDs and their bindings',
    recovery: 'input',
    cause: 'The binding of a service TD does not match what was agreed.',
    remedy: 'Check type, attributes, measurement and UUID of both TDs.',
  },
  14: {
    about: 'migration of a TD',
    recovery: 'step',
    cause: 'A migration bundle, stream or page is not as the protocol expects.',
    remedy: 'Abort the session on both sides and start again; both modules must support the same version.',
  },
  15: {
    about: 'TDX Connect: trusted devices, IOMMU, links',
    recovery: 'step',
    cause: 'A device, link or IOMMU is not in the state that the leaf expects.',
    remedy: 'Only modules of the 2.x line give it. Check the order of SPDM, IDE and device interface set-up.',
  },
  16: {
    about: 'reports and their verification',
    recovery: 'input',
    cause: 'The report was made on another machine, under other microcode, or was changed.',
    remedy: 'Verify on the machine that made the report, or by a quote.',
  },
  17: {
    about: 'L2 VMs inside a TD',
    recovery: 'exit',
    cause: 'The L1 inside the TD, or the L2 it runs, did this; it is no business of the bring-up of a host.',
    remedy: 'Look at the L1 hypervisor in the TD.',
  },
};
