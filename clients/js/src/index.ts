export * from "./errors.ts";
export { type Http, http } from "./http.ts";
export { newId } from "./ids.ts";
export type { Field, Picture } from "./picture.ts";
export { type AfterClose, afterClose, waitMs } from "./reconnect.ts";
export { connect, Room, type RoomOptions, type Status } from "./room.ts";
export { Session } from "./session.ts";
export type * from "./wire.ts";
