# SPDX-License-Identifier: Apache-2.0
#
# cmake -DROOT=<source tree> -P captures.cmake: a lambda of a header that uses its class names `this` in its captures.
#
# g++ orders what [&] captures by first use, and nvcc hands it the body with `this->` written out. Units of both that are linked
# together would then lay the same closure out differently. What is named comes first, in both. The check sees members by
# their underscore; calls of member functions it does not see.

cmake_minimum_required(VERSION 3.25)

file(GLOB_RECURSE files RELATIVE ${ROOT}/include ${ROOT}/include/pesc/*.hpp ${ROOT}/include/pesc/*.inl)
if(NOT files)
  message(FATAL_ERROR "no headers under ${ROOT}/include")
endif()

set(errors)
foreach(file ${files})
  file(READ ${ROOT}/include/${file} text)
  # Brackets and semicolons have a meaning in CMake's lists.
  string(REPLACE "[&]" "<capture>" text "${text}")
  string(REPLACE "[=]" "<capture>" text "${text}")
  string(REGEX REPLACE "[][;]" " " text "${text}")
  string(REGEX MATCHALL "<capture>[^{}]*{[^{}]*[^A-Za-z0-9_.>:\"][a-z][a-z0-9_]*_[^A-Za-z0-9_]" found "${text}")
  foreach(lambda ${found})
    string(APPEND errors "\n  ${file}: ${lambda}")
  endforeach()
endforeach()

if(errors)
  message(FATAL_ERROR "lambdas that use members by [&] or [=]; write [&, this]:${errors}")
endif()
