-- What Redis gives a script, and no more. A global that a script sets is an error in Redis.
stds.redis = {
  read_globals = {
    "KEYS", "ARGV", "redis", "cjson", "cmsgpack", "bit", "struct",
    "math", "string", "table",
    "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget",
    "select", "setmetatable", "tonumber", "tostring", "type", "unpack", "xpcall",
  },
}
std = "redis"
max_line_length = 100
