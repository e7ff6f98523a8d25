// What the host says where it refuses a call: in a component it is in the error that is thrown, in tests it is thrown itself.

export const refusalOf = (error) => error?.payload ?? error;
