// serve ADDRESS, or client ADDRESS CASE...: see ../../README.md.
#include "driver.h"

#include <iostream>

int main(int argc, char** argv) {
  const std::string command = argc > 2 ? argv[1] : "";
  if (command == "serve") {
    Serve(argv[2]);
    return 0;
  }
  if (command != "client") {
    std::cerr << "serve or client, then an address and cases" << std::endl;
    return 2;
  }
  bool failed = false;
  for (int i = 3; i < argc; ++i) {
    const std::string different = RunCase(argv[2], argv[i]);
    failed |= !different.empty();
    std::cout << argv[i] << '\t' << (different.empty() ? "ok" : different) << std::endl;
  }
  return failed;
}
