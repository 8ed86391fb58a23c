/**
 * A place where the real kernel may sleep or be preempted. With the lab's scheduler attached other CPUs run
 * there. @public
 */
export type SchedulingPoint = (where: string) => Promise<void>;
