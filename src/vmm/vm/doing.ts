/** Refusals of the kernel, with what user space was about. */
import { KernelError } from '../../abi/errno.ts';

/** Does `work`; a refusal in it becomes one that says `what` was being done, errno, code and data as they were. @public */
export async function doing<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    const { code, text, data } = error.reason;
    throw new KernelError(error.errno, code, `${what}: ${text}`, { ...data });
  }
}
