// The two halves of the driver.
#pragma once

#include <string>

// The most that a message may have, by default.
constexpr size_t kLimit = 4 << 20;

// Runs the server that our channel meets, for ever.
void Serve(const std::string& address);

// Runs one case on a channel of its own: an empty text, or what was different.
std::string RunCase(const std::string& address, const std::string& name);
