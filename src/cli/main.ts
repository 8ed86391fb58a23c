/** The command line: finds the verb, runs it, and turns every failure into one sentence and an exit code. */
import { Command, CommanderError } from 'commander';
import metadata from '../../package.json' with { type: 'json' };
import { InputError } from '../abi/input-error.ts';
import { processIo } from './io.ts';
import { EXIT, type Verb } from './verb.ts';
import { VERBS } from './verbs.ts';

const EXIT_CODES = 'Exit code 0: done; 1: the answer is no; 2: wrong usage or unreadable input.';

/** `<host...>` as it stands in a verb's usage. */
function operandsOf(verb: Command): string {
  return verb.registeredArguments
    .map((argument) => `${argument.name()}${argument.variadic ? '...' : ''}`)
    .map((name, i) => (verb.registeredArguments[i]!.required ? `<${name}>` : `[${name}]`))
    .join(' ');
}

/** Values of an option that may be given several times; each takes one, so that operands may follow it. */
function gather(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

async function main(argv: readonly string[]): Promise<number> {
  const io = processIo();
  let exitCode: number = EXIT.done;
  const program = new Command('tdxlab')
    .description('A whole TDX host in TypeScript: plans, brings up and explains Intel TDX hosts.')
    .version(metadata.version)
    .exitOverride()
    // Without the word [options] a summary has room beside its verb on a terminal of 80 columns.
    .configureHelp({ subcommandTerm: (verb) => `${verb.name()} ${operandsOf(verb)}`.trim() })
    .addHelpText('after', `\n${EXIT_CODES}`)
    .configureOutput({ outputError: (text) => io.err(`tdxlab: ${text.replace(/^error: /, '').trimEnd()}`) });
  const add = (verb: Verb): void => {
    const command = program
      .command(`${verb.name} ${verb.operands}`.trim(), { hidden: verb.hidden === true })
      .description(verb.summary)
      .addHelpText('after', verb.help === undefined ? '' : `\n${verb.help}`)
      .allowUnknownOption(verb.hyphens === true)
      .option('--json', 'print one JSON document instead of text')
      .action(async (...parameters: unknown[]) => {
        const operands = parameters
          .slice(0, -2)
          .flat()
          .filter((value) => value !== undefined) as string[];
        const { run } = await verb.load();
        exitCode = await run(operands, command.opts(), io);
      });
    for (const [flags, text, times] of verb.options) {
      if (times === 'repeatable') command.option(flags, text, gather);
      else command.option(flags, text);
    }
  };
  for (const verb of VERBS) add(verb);
  try {
    await program.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    if (!(error instanceof InputError)) throw error;
    io.err(`tdxlab: ${error.message}`);
    return EXIT.usage;
  }
}

process.exitCode = await main(process.argv.slice(2));
