/** The choices about the module's life and the host's power states (Linux host rules 1.2, 1.3, 1.9, 1.11, 5.10, 5.11). */
import type { KernelPolicy } from './kernel-policy.ts';
import type { Knob } from './knob.ts';

/** @internal */
export const MODULE_KNOBS: {
  readonly [K in 'enable' | 'optedIn' | 'onError' | 'kexec' | 'suspend' | 'cpuHotAdd']: Knob<KernelPolicy[K]>;
} = {
  enable: {
    title: 'when the module is initialised',
    changes: 'before-enabling',
    values: [
      {
        value: 'boot',
        meaning: 'At boot, always.',
        by: 'Sean Christopherson; Linux 7',
        why: 'Memory is not fragmented yet, and what goes wrong is known before anybody depends on it.',
        weakness: 'PAMT is spent even if no TD ever runs.',
      },
      {
        value: 'first-user',
        meaning: 'When KVM first asks.',
        by: 'Kai Huang, 2022; Linux up to 6.x',
        why: 'PAMT is spent only on hosts that run TDs.',
        weakness: 'Memory is fragmented by then: the first TD fails for want of contiguous pages.',
      },
      {
        value: 'opt-in',
        meaning: 'At boot, and only with use_tdx=on on the kernel command line.',
        by: 'Kai Huang, 2022 (dropped)',
        why: 'A host does not pay for TDX unless somebody said so.',
        weakness: 'A host that supports TDX has none until somebody edits its command line and boots again.',
      },
      {
        value: 'primed',
        meaning: 'At boot, and a throw-away TD is made and taken apart before anybody else comes.',
        by: 'operators who want the first TD as fast as the second',
        why: 'That TDs can be made is proved at boot, and the first user pays no first-time cost.',
        weakness: 'Boot takes longer, and a TD that cannot be made leaves a host without TDX that had it.',
      },
    ],
  },
  optedIn: {
    title: 'whether use_tdx=on was given; counts under enable=opt-in',
    changes: 'before-enabling',
    values: [
      {
        value: false,
        meaning: 'The option was not given.',
        by: 'Dave Hansen, 2022',
        why: 'TDX has no effect on a host that did not ask for it.',
        weakness: 'Nobody can start a TD before the host has booted again.',
      },
      {
        value: true,
        meaning: 'The option was given.',
        by: 'Kai Huang, 2022',
        why: 'The host is meant to run TDs.',
        weakness: 'PAMT is spent although no TD may ever run.',
      },
    ],
  },
  onError: {
    title: 'what follows a SEAMCALL that should not have failed',
    changes: 'any-time',
    values: [
      {
        value: 'leave',
        meaning: 'The module stays as it is; at run time the TD concerned answers EIO until it is closed.',
        by: 'Linux',
        why: 'Nothing else is touched, and what happened can be looked at.',
        weakness: 'The TD that answers nothing any more keeps its memory and its KeyID.',
      },
      {
        value: 'shutdown',
        meaning: 'TDH.SYS.LP.SHUTDOWN on every online CPU: the module is gone for this boot.',
        by: 'Kai Huang, 2022 (dropped)',
        why: 'A module in an unknown state is not used again.',
        weakness: 'One failed call of one TD takes all the others down.',
      },
      {
        value: 'kill-td',
        meaning: 'The TD concerned ends at once, and what it had is reclaimed.',
        by: 'operators who share hosts',
        why: 'Memory and KeyID are free for the next TD without anybody’s help.',
        weakness: 'A TD dies of a failure that it might have survived.',
      },
      {
        value: 'refuse',
        meaning: 'The request fails with the status as its reason; the TD goes on.',
        by: 'authors of VMMs',
        why: 'User space decides: try again, do without, or end the TD in good order.',
        weakness: 'A VMM that goes on as if nothing had happened runs a TD of which a part is missing.',
      },
    ],
  },
  kexec: {
    title: 'what happens to the module when another kernel is started',
    changes: 'any-time',
    values: [
      {
        value: 'disable-module',
        meaning: 'TDH.SYS.DISABLE, then caches are flushed: all TD memory is ordinary again.',
        by: 'Linux 7.2',
        why: 'The next kernel finds clean memory and can initialise the module from scratch.',
        weakness: 'A module without the call stays behind, and the next kernel has no TDX.',
      },
      {
        value: 'flush',
        meaning: 'Caches are flushed and the module is left behind.',
        by: 'first versions of the TDX host series, 2022',
        why: 'It works with every module and takes no longer than a flush.',
        weakness:
          'With the partial-write erratum the next kernel’s writes to former TD memory are machine checks, and it has no TDX.',
      },
      {
        value: 'refuse',
        meaning: 'No kernel is started while TDX is enabled; after a crash the machine is reset.',
        by: 'Linux before TDH.SYS.DISABLE, on machines with the erratum',
        why: 'No kernel ever meets memory that another one’s TDs had.',
        weakness: 'No live update of the kernel, and no dump of a crash.',
      },
    ],
  },
  suspend: {
    title: 'which kinds of sleep a TDX host allows',
    changes: 'any-time',
    values: [
      {
        value: 'allow-idle-only',
        meaning: 'Suspend-to-idle drops VMX operation and takes it again; S3 and hibernation are refused.',
        by: 'Linux',
        why: 'TDX survives sleep that keeps memory and processors powered.',
        weakness: 'A machine that has only S3 cannot sleep.',
      },
      {
        value: 'refuse',
        meaning: 'No sleep of any kind.',
        by: 'operators of servers',
        why: 'Nothing is interrupted that TDs depend on.',
        weakness: 'Sleep that would do no harm is refused as well.',
      },
    ],
  },
  cpuHotAdd: {
    title: 'what happens to a processor that is plugged in',
    changes: 'any-time',
    values: [
      {
        value: 'offline-only',
        meaning:
          'It is registered and stays offline: a module that is configured initialises no more processors.',
        by: 'Linux',
        why: 'The kernel knows the processor, and can use it after the next boot.',
        weakness: 'Whoever brings it online hears of it only then.',
      },
      {
        value: 'refuse',
        meaning: 'The hot-add is refused while TDX is enabled.',
        by: 'first versions of the TDX host series, 2022',
        why: 'The refusal comes at once, with its reason.',
        weakness:
          'A processor is refused that would have been useful to everything but TDX after the next boot.',
      },
    ],
  },
};
