/** `tdxlab doctor [--root PATH]`: how far a machine has come up as a TDX host. */
import { type DoctorVerdict, diagnose } from '../../lab/doctor/diagnose.ts';
import { readMachine } from '../../survey/live/read-machine.ts';
import { toJson } from '../format.ts';
import { printDoctor } from '../print-doctor.ts';
import { EXIT, type Run } from '../verb.ts';

/** A machine that can have no TDX is an answer too. */
const EXIT_OF: Readonly<Record<DoctorVerdict, number>> = {
  ready: EXIT.done,
  'no-tdx': EXIT.done,
  td: EXIT.done,
  'not-ready': EXIT.no,
  'cannot-tell': EXIT.no,
};

/** @internal */
export const run: Run = async (_, options, io) => {
  const root = options.root === undefined ? undefined : String(options.root);
  const report = await diagnose(readMachine(root));
  if (options.json === true) io.out(toJson(report));
  else printDoctor(io, report, root);
  return EXIT_OF[report.verdict];
};
