-- Local names of what the scripts call most: a global is looked up in two tables each time.
local call, pack, unpack_fields, byte_of, floor = redis.call, struct.pack, struct.unpack, string.byte, math.floor
