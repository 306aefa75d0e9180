# cmake -DLIBRARY=... -DNM=... -P check_symbols.cmake
# Fails, and removes the library, when it exports more than a class must, or needs a C++ symbol of
# Ceph that is not weak (weak_ceph_symbols.h).
execute_process(COMMAND ${NM} -D --undefined-only ${LIBRARY} OUTPUT_VARIABLE undefined
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${NM} -D --defined-only ${LIBRARY} OUTPUT_VARIABLE defined
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL " U _Z[^\n]*(cls_|ceph|siphon)[^\n]*" strong "${undefined}")
string(REGEX REPLACE "[^\n]* __cls_(init|name|name__siphon|ver_maj|ver_min|ver__1_0)\n" "" extra
       "${defined}")
if(strong OR extra)
  file(REMOVE ${LIBRARY})
  message(FATAL_ERROR "strong Ceph symbols: ${strong}\nexported beyond the class's: ${extra}")
endif()
