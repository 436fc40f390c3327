"""The commands of `forebay`, one module each: parse, call one function, print, exit."""
