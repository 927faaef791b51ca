# libtorch from the pip wheel in .venv (tools/setup.sh torch): KEDGE_WITH_TORCH and the target kedge_libtorch.
#
# Not find_package(Torch): where the wheel is one for CUDA, its config file wants the CUDA toolkit, which nothing here
# compiles with; the libraries themselves find what they need beside them.
set(KEDGE_WITH_TORCH OFF)
if(KEDGE_TORCH STREQUAL "OFF")
  return()
endif()
file(GLOB torch_root ${CMAKE_SOURCE_DIR}/.venv/lib/python3.*/site-packages/torch)
if(NOT EXISTS "${torch_root}/lib/libtorch_cpu.so")
  if(KEDGE_TORCH STREQUAL "AUTO")
    message(STATUS "kedge-torch: not built, .venv has no libtorch (tools/setup.sh torch installs it)")
    return()
  endif()
  message(FATAL_ERROR "KEDGE_TORCH is ${KEDGE_TORCH} and .venv has no libtorch; run tools/setup.sh torch")
endif()
set(KEDGE_WITH_TORCH ON)
message(STATUS "kedge-torch: with libtorch in ${torch_root}")

add_library(kedge_libtorch INTERFACE)
# After the system's folders: the wheel has headers of other libraries among its own, of another version (fmt).
target_compile_options(kedge_libtorch INTERFACE "SHELL:-idirafter \"${torch_root}/include\""
  "SHELL:-idirafter \"${torch_root}/include/torch/csrc/api/include\"")
# torch_cuda registers its kernels when it is loaded; no symbol of ours asks for it.
set(torch_libraries ${torch_root}/lib/libtorch.so ${torch_root}/lib/libtorch_cpu.so ${torch_root}/lib/libc10.so)
foreach(library torch_cuda c10_cuda)
  if(EXISTS ${torch_root}/lib/lib${library}.so)
    list(APPEND torch_libraries ${torch_root}/lib/lib${library}.so)
  endif()
endforeach()
# Threads of ours that share products (twin/grouped.cc) are those of libtorch's own OpenMP library: within them its
# products know not to start more. Other compilers have another such library; there the products run one by one.
file(GLOB torch_openmp ${torch_root}/lib/libgomp*.so*)
if(torch_openmp AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(kedge_libtorch INTERFACE -fopenmp)
  list(APPEND torch_libraries ${torch_openmp})
endif()
# libstdc++ first: the wheel's libraries export parts of an older one's std::filesystem, which crash here when they are
# found before ours (std::filesystem::remove_all of torch 2.11 for CUDA).
target_link_libraries(kedge_libtorch INTERFACE
  -Wl,--push-state,--no-as-needed stdc++ ${torch_libraries} -Wl,--pop-state)
