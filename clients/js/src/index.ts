/** The client of Fairlead. What is not exported here may change without notice. */
export { connect, Connection } from "./connection.ts";
export type { ConnectionEvents, ConnectOptions, SendOptions, Status, StatusChange } from "./connection.ts";
export { FairleadError } from "./errors.ts";
export type { FieldError, Problem } from "./errors.ts";
export type { Retry } from "./retry.ts";
export { Run, run, subscribe } from "./run.ts";
export type { Item, RunEvents, RunOptions } from "./run.ts";
export type { Ack, Message, Sent, SentState } from "./sent.ts";
export type { SessionEvents } from "./session.ts";
