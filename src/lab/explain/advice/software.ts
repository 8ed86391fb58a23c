/** Statuses that no module makes: those of the SEAMCALL wrapper and those of P-SEAMLDR. */
import type { SeamldrStatusName } from '../../../abi/seamldr-status.ts';
import type { SW_STATUS } from '../../../abi/status.ts';
import type { StatusAdvice } from './advice.ts';

const REINSTALL = 'Download the module again and check it against the published hash.';

/** What the kernel makes of CPU events (Linux host rules 0), with the errno it turns them into. @internal */
export const SOFTWARE_ADVICE = {
  TDX_SW_ERROR: {
    meaning: 'The SEAMCALL never reached the module; the kernel made this status itself.',
    recovery: 'reboot',
    cause: 'The base value of the three software statuses; alone it should not appear.',
    remedy: 'Look at the low 32 bits: 0xffff0000 no module, 0xd general protection, 0x6 invalid opcode.',
  },
  TDX_SEAMCALL_UD: {
    meaning: 'The CPU raised #UD: it is not in VMX operation. Linux makes -EACCES of it.',
    recovery: 'step',
    cause: 'A SEAMCALL before VMXON on this processor, or after KVM left VMX operation.',
    remedy: 'Enter VMX operation on this processor first; in old kernels load kvm_intel before TDX is used.',
  },
  TDX_SEAMCALL_GP: {
    meaning: 'The CPU raised #GP: SEAM is not available. Linux makes -EOPNOTSUPP of it.',
    recovery: 'firmware',
    cause: 'The SEAM range registers are not enabled: TDX, or its SEAM loader, is off in the BIOS.',
    remedy:
      'In the BIOS turn on TME, TME-MT, TDX, the TDX SEAM loader and SGX, and leave room in the key split; then ' +
      'boot cold.',
  },
  TDX_SEAMCALL_VMFAILINVALID: {
    meaning: 'The CPU found no module to call (CF=1). Linux makes -ENODEV of it: module not loaded.',
    recovery: 'firmware',
    cause:
      'The SEAM loader did not load a module: loader off in the BIOS, no or a wrong module image on the boot ' +
      'partition (/EFI/TDX/TDX-SEAM.so and its .sigstruct), or a module that shut itself down after a fatal error. ' +
      'For a P-SEAMLDR leaf: another processor is in the loader.',
    remedy:
      'Turn the TDX SEAM loader on in the BIOS, put a module image where the firmware looks for it, boot cold. ' +
      'After a fatal error of the module: reboot. For P-SEAMLDR: repeat, one processor at a time.',
  },
} as const satisfies Record<keyof typeof SW_STATUS, StatusAdvice>;

/** P-SEAMLDR's own statuses. @internal */
export const SEAMLDR_ADVICE = {
  PSEAMLDR_EBADPARAM: {
    meaning: 'P-SEAMLDR does not take the parameters, or has no such leaf.',
    recovery: 'input',
    cause: 'A misaligned or private address, reserved fields set, a bad page count, or a leaf it lacks.',
    remedy:
      'Check the parameter page: version, scenario 0 or 1, page count 1 to 496, addresses of shared memory.',
  },
  PSEAMLDR_EBADCALL: {
    meaning: 'P-SEAMLDR was called in the wrong order.',
    recovery: 'step',
    cause: 'The install was called twice on one processor, or not on all before the module was used.',
    remedy: 'Call SEAMLDR.INSTALL exactly once on every processor, one after the other.',
  },
  PSEAMLDR_EBADHANDOFF: {
    meaning: 'The running module left no handoff data that the new one can use.',
    recovery: 'step',
    cause: 'TDH.SYS.SHUTDOWN was not run, or the handoff version does not fit.',
    remedy: 'Run TDH.SYS.SHUTDOWN with a version both modules know, or reboot into the new module.',
  },
  PSEAMLDR_ECLEANUPREQ: {
    meaning: 'An earlier install must be cleaned up first.',
    recovery: 'step',
    cause: 'A module is loaded or half loaded, and the scenario does not replace it.',
    remedy: 'Run the clean-up leaf of P-SEAMLDR where it has one, or reboot.',
  },
  PSEAMLDR_EUNSUPPORTED: {
    meaning: 'P-SEAMLDR does not support the version the module is signed with.',
    recovery: 'module',
    cause: 'The module is newer than the loader.',
    remedy: 'Update the BIOS, which brings the loader, or use an older module.',
  },
  PSEAMLDR_ENOMEM: {
    meaning: 'The module does not fit the SEAM range.',
    recovery: 'firmware',
    cause: 'The BIOS reserved too small a SEAM range for this module.',
    remedy: 'Update the BIOS, or use a smaller module.',
  },
  PSEAMLDR_EUNSPECERR: {
    meaning: 'P-SEAMLDR found the platform configuration unfit, without saying what.',
    recovery: 'firmware',
    cause: 'The BIOS set the platform up in a way the loader does not accept.',
    remedy: 'Load the BIOS defaults, enable TDX again, update the BIOS.',
  },
  PSEAMLDR_EUNSUPCPU: {
    meaning: 'The module does not support a CPU of this machine.',
    recovery: 'module',
    cause: 'The module was made for another CPU generation.',
    remedy: 'Install the module released for this CPU family.',
  },
  PSEAMLDR_EBADSIG: {
    meaning: 'The signature of the module is not valid.',
    recovery: 'module',
    cause: 'A damaged signature file, one of another module, or a debug module on a production CPU.',
    remedy: REINSTALL,
  },
  PSEAMLDR_EBADHASH: {
    meaning: 'The module image does not have the hash that was signed.',
    recovery: 'module',
    cause: 'A damaged image, or image and signature of different releases.',
    remedy: REINSTALL,
  },
  PSEAMLDR_EINTERRUPT: {
    meaning: 'An interrupt came in before P-SEAMLDR was through.',
    recovery: 'retry',
    cause: 'Interrupts were not held off.',
    remedy: 'Repeat the call.',
  },
  PSEAMLDR_ENOENTROPY: {
    meaning: 'P-SEAMLDR had no random numbers to draw.',
    recovery: 'retry',
    cause: 'The hardware random number generator ran dry.',
    remedy: 'Repeat the call.',
  },
} as const satisfies Record<SeamldrStatusName, StatusAdvice>;
