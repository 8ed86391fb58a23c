/** What plays one kind of event. */
import type { EventKind } from '../../language/event-schema.ts';
import type { PlannedEvent } from '../../timeline.ts';
import type { ScenarioHost } from '../scenario-host.ts';

/** An event of this kind. @internal */
export type EventOf<K extends EventKind> = Extract<PlannedEvent, { do: K }>;

/** Plays an event: returns when it is done, throws KernelError where it is refused, EventEnd otherwise. @internal */
export type Handler<K extends EventKind> = (host: ScenarioHost, event: EventOf<K>) => void | Promise<void>;

/** @internal */
export type Handlers<K extends EventKind> = { readonly [Kind in K]: Handler<Kind> };
